use clap::{Args, Subcommand};
use pouch_client::{Class, device};
use pouch_protocol::DeviceKey;
use serde_json::json;

use crate::exit;
use crate::run::{Context, Failure, Outcome, printing};
use crate::show::{iso, local};

/// Show, replace and revoke the keys that sign my requests to the relay
#[derive(Args)]
pub(crate) struct Device {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    List(List),
    Rotate(Rotate),
    Revoke(Revoke),
}

/// List the keys that the relay takes requests from as mine
#[derive(Args)]
struct List {}

/// Make a new device key for this home, and have the relay refuse the one before
///
/// Transfers of this home that are under way end. If it is interrupted, the same again goes on.
#[derive(Args)]
struct Rotate {}

/// Have the relay refuse another device key of mine, for good
#[derive(Args)]
struct Revoke {
    /// The key, or the beginning of it; `pouch device list` shows them
    #[arg(value_name = "KEY")]
    key: String,
}

impl Device {
    pub(crate) fn run(self, context: &Context) -> Outcome {
        match self.verb {
            Verb::List(_) => list(context),
            Verb::Rotate(_) => rotate(context),
            Verb::Revoke(verb) => verb.run(context),
        }
    }
}

fn list(context: &Context) -> Outcome {
    let party = context.party()?;
    let (devices, current) = context.run(async { Ok(device::list(&party, &context.relay(&party).await?).await?) })?;
    for status in devices {
        let here = status.key == current;
        let object = json!({ "type": "device", "key": status.key, "created": iso(status.created), "here": here });
        context.show.object(&object).map_err(printing)?;
        context.show.essence(status.key).map_err(printing)?;
        let mark = if here { "  this home's" } else { "" };
        context.show.line(format_args!("{}  since {}{mark}", status.key, local(status.created))).map_err(printing)?;
    }
    Ok(())
}

fn rotate(context: &Context) -> Outcome {
    let party = context.party()?;
    let identity = context.unlock(&party)?;
    let (new, old) = context.run(async { Ok(device::rotate(&party, &identity).await?) })?;
    context.show.object(&json!({ "type": "device", "key": new, "revoked": old })).map_err(printing)?;
    context.show.essence(new).map_err(printing)?;
    context.show.line(format_args!("{new}  is this home's key\n{old}  is revoked")).map_err(printing)
}

impl Revoke {
    /// The one key that is meant. One that is not listed any more is named whole.
    fn find(&self, listed: &[DeviceKey]) -> Result<DeviceKey, Failure> {
        let typed = self.key.to_ascii_lowercase();
        if let Ok(whole) = typed.parse() {
            return Ok(whole);
        }
        let found: Vec<_> = listed.iter().filter(|key| key.to_string().starts_with(&typed)).collect();
        match found.as_slice() {
            [one] if !typed.is_empty() => Ok(**one),
            [] => Err(Failure::Told {
                code: exit::code(Class::NotFound),
                text: format!("there is no device key {typed} of yours"),
                hint: Some("`pouch device list` shows them".into()),
                kind: None,
            }),
            _ => Err(Failure::usage(format!("several keys begin with {typed:?}"), "say more of it")),
        }
    }

    fn run(self, context: &Context) -> Outcome {
        let party = context.party()?;
        let key = context.run(async {
            let api = context.relay(&party).await?;
            let (devices, current) = device::list(&party, &api).await?;
            let key = self.find(&devices.iter().map(|status| status.key).collect::<Vec<_>>())?;
            if key == current {
                let hint = "`pouch device rotate` replaces it and revokes it then";
                return Err(Failure::usage("this home's own key cannot revoke itself", hint));
            }
            device::revoke(&party, &api, key).await?;
            Ok(key)
        })?;
        context.show.object(&json!({ "type": "device-revoked", "key": key })).map_err(printing)?;
        context.show.essence(key).map_err(printing)?;
        context.show.line(format_args!("{key} is revoked")).map_err(printing)
    }
}
