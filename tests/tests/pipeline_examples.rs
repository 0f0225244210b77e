//! The examples of docs/pipelines.md, "A runner that keeps nothing", as they stand there: run twice, in empty folders.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use pouch_tests::{Pair, Postgres, Run, program, skip, text, workspace};

/// The block of the page with this language and name.
fn block(info: &str) -> String {
    let page = fs::read_to_string(workspace().join("docs/pipelines.md")).unwrap();
    let (_, from) = page.split_once(&format!("\n```{info}\n")).unwrap_or_else(|| panic!("there is no {info}"));
    from.split_once("\n```\n").unwrap().0.to_owned()
}

/// What GitHub gives to a shell: the lines beneath `run: |`.
fn github_run() -> String {
    let yaml = block("yaml github");
    let (head, lines) = yaml.split_once("run: |\n").unwrap();
    assert!(head.contains("NIGHTLY: ${{ secrets.NIGHTLY }}"), "{head}");
    lines.lines().map(|line| format!("{}\n", line.trim_start())).collect()
}

/// What GitLab does: the items of `script`, one after the other, until one fails.
fn gitlab_script() -> String {
    let yaml = block("yaml gitlab");
    let (_, items) = yaml.split_once("script:\n").unwrap();
    items.lines().map(|line| format!("{}\n", line.trim_start().strip_prefix("- ").unwrap())).collect()
}

/// A shell in a folder of its own with nothing in it and nothing in its home, that finds `pouch` and what `more` adds.
fn shell(pair: &Pair, name: &str, script: &str, arguments: &[&str], more: &Path) -> Run {
    let party = pair.stranger(name);
    let path = format!("{}:{}:/usr/bin:/bin", program().parent().unwrap().display(), more.display());
    // -e as both of them have it, and no settings of the user's.
    let path = format!("PATH={path}");
    let words = [&["-i", &path, "sh", "-e", "-c", script, "sh"], arguments].concat();
    Run::of("env").args(words).dir(&party.desk())
}

/// Runs a job's lines on two days, on the second once more; what came is what was made on each.
fn two_days(kind: &str, script: &str, run: impl Fn(&Pair, &str, &str, &str, &str) -> Run) {
    let pair = Pair::new();
    let secret = pair.ada.run(&["pipeline", "new", "nightly", "--to", "bo", "--until", "90d", "-q"]).ok().word();
    for day in ["1", "2"] {
        let id = run(&pair, &format!("{kind}{day}"), script, &secret, day).end().ok().word();
        let again = run(&pair, &format!("{kind}{day}-again"), script, &secret, day).end().ok().word();
        assert_eq!(again, id, "a run that is run again delivers nothing");
        let into = pair.bo.fresh();
        // The second day's follows the first's.
        pair.bo.run(&["receive", &id, "-o", text(&into)]).ok().in_order();
        assert_eq!(fs::read_to_string(into.join("report.csv")).unwrap(), format!("day {day}\n"));
    }
    pair.bo.run(&["inbox"]).ok().says("nothing is waiting");
}

/// What the examples' jobs make.
fn report(folder: &Path, day: &str) {
    let path = folder.join("report");
    fs::write(&path, format!("#!/bin/sh\necho day {day}\n")).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn the_github_job() {
    two_days("github", &github_run(), |pair, name, script, secret, day| {
        let run = shell(pair, name, &format!("NIGHTLY='{secret}' GITHUB_RUN_ID={day}\n{script}"), &[], Path::new("/"));
        report(&pair.stranger(name).desk(), day);
        run
    });
}

#[test]
fn the_gitlab_job() {
    two_days("gitlab", &gitlab_script(), |pair, name, script, secret, day| {
        let file = pair.root().join(format!("{name}.variable"));
        fs::write(&file, secret).unwrap();
        let set = format!("NIGHTLY='{}' CI_PIPELINE_ID={day}\n", text(&file));
        let run = shell(pair, name, &format!("{set}{script}"), &[], Path::new("/"));
        report(&pair.stranger(name).desk(), day);
        run
    });
}

#[test]
fn the_nightly_dump_and_the_handler() {
    let Some(postgres) = Postgres::start(&[]) else { return skip("the nightly dump: POUCH_POSTGRES is not set") };
    postgres.create("shop");
    let pair = Pair::new();
    let secret = pair.ada.run(&["pipeline", "new", "nightly", "--to", "bo", "-q"]).ok().word();
    let file = pair.root().join("nightly.secret");
    fs::write(&file, secret).unwrap();
    let (script, url) = (block("sh nightly"), postgres.url("shop"));
    // The name of the file is that of the database, so the connection comes by variables.
    for (day, date) in [("1", "2026-11-21"), ("2", "2026-11-22")] {
        postgres.sql("shop", &format!("CREATE TABLE orders_{day} (id int); INSERT INTO orders_{day} VALUES ({day})"));
        let tools = pair.root().join(format!("tools{day}"));
        fs::create_dir(&tools).unwrap();
        // The clock of that day, for the key; and the database of that name, for the dump.
        let bin = std::env::var("POUCH_POSTGRES").unwrap();
        for (name, text) in [
            ("date", format!("#!/bin/sh\necho {date}\n")),
            ("pg_dump", format!("#!/bin/sh\nexec {bin}/pg_dump --no-owner --no-blobs '{url}'\n")),
        ] {
            let path = tools.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let set =
            format!("PATH={}:$PATH POUCH_PIPELINE_FILE='{}'\nexport POUCH_PIPELINE_FILE\n", text(&tools), text(&file));
        let run = |name: String| shell(&pair, &name, &format!("{set}{script}"), &["shop"], Path::new("/")).end().ok();
        let id = run(format!("cron{day}")).word();
        assert_eq!(run(format!("cron{day}-again")).word(), id);
    }
    // Bo's cron, with what loads it: once for each, and nothing the second time.
    let receive = block("sh receive");
    let path = format!("{}:/usr/bin:/bin", program().parent().unwrap().display());
    let cron = || {
        Run::of("sh").args(["-c", &receive]).env("PATH", &path).env("POUCH_HOME", pair.bo.home()).dir(&pair.bo.desk())
    };
    cron().end().ok();
    // What somebody else sent is left there, and no failure.
    let cy = pair.third_as("cy", "member");
    cy.pins(&pair.bo, "bo");
    let others = cy.send(&[text(&cy.file("x", "x")), "--to", "bo"]);
    cron().end().ok();
    assert_eq!(pair.bo.run(&["inbox", "-q"]).ok().word(), others);
    let loaded = fs::read_to_string(pair.bo.desk().join("loaded")).unwrap();
    assert_eq!(loaded.matches("CREATE TABLE public.orders_1").count(), 2, "in both dumps");
    assert_eq!(loaded.matches("CREATE TABLE public.orders_2").count(), 1, "in the second");
}
