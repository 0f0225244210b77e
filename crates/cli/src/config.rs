//! The config file: `config.toml` with a table for each verb, whose keys are the verb's long flags.

use std::collections::BTreeMap;
use std::path::Path;

use pouch_client::Home;

/// Defaults by verb path and flag.
#[derive(Default)]
pub(crate) struct Defaults(BTreeMap<Vec<String>, BTreeMap<String, String>>);

impl Defaults {
    /// The defaults of the flags of the verb at `path`; the empty path has the global ones.
    pub(crate) fn of(&self, path: &[String]) -> BTreeMap<String, String> {
        self.0.get(path).cloned().unwrap_or_default()
    }
}

/// Reads the file, if there is one. Keys that no flag has are refused, so that a slip of the pen is noticed.
pub(crate) fn load(home: Option<&Path>) -> Result<Defaults, String> {
    let Ok(home) = Home::open(home) else { return Ok(Defaults::default()) };
    let path = home.config("config.toml");
    let Some(text) = home.settings().map_err(|e| e.to_string())? else { return Ok(Defaults::default()) };
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| format!("{} is not TOML: {}", path.display(), e.message()))?;
    let mut defaults = Defaults::default();
    collect(&crate::args::command(), &table, &mut Vec::new(), &mut defaults)
        .map_err(|what| format!("{}: {what}", path.display()))?;
    Ok(defaults)
}

fn collect(
    command: &clap::Command,
    table: &toml::Table,
    path: &mut Vec<String>,
    into: &mut Defaults,
) -> Result<(), String> {
    for (key, value) in table {
        if let toml::Value::Table(below) = value {
            let sub = command
                .get_subcommands()
                .find(|c| c.get_name() == key)
                .ok_or_else(|| format!("there is no verb {key:?}"))?;
            path.push(key.clone());
            collect(sub, below, path, into)?;
            path.pop();
            continue;
        }
        let known = command.get_arguments().any(|a| a.get_long() == Some(key));
        if !known || key == "home" {
            return Err(format!("there is no flag {key:?} to set here"));
        }
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(format!("{key:?} is not text, a number, true or false")),
        };
        into.0.entry(path.clone()).or_default().insert(key.clone(), text);
    }
    Ok(())
}
