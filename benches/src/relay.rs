//! What a relay does with large bundles: parts over several connections against one PUT to nginx, and its memory when
//! many are on their way at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::load::{Client, Object, each, runtime};
use crate::nginx::Nginx;
use crate::options::Options;
use crate::process::{Cost, make_file, timed};
use crate::rounds::{Contender, run};
use crate::site::Site;
use crate::tools::Tools;
use crate::{Failure, remark, say, table};

/// A part as a send begins with.
const PART: usize = 8 << 20;
/// Connections that carry parts.
const CONNECTIONS: usize = 4;
/// Uploads at once, when memory is looked at.
const UPLOADS: usize = 200;

pub(crate) fn measure(options: &Options, tools: &Tools) -> Result<(), Failure> {
    transfer(options, tools)?;
    many_uploads(options)
}

fn transfer(options: &Options, tools: &Tools) -> Result<(), Failure> {
    let site = Site::start(&options.dir, 1, "", "exec")?;
    let client = site.owner()?;
    let runtime = runtime()?;
    remark("making parts");
    let number_of = (options.size as usize).div_ceil(PART);
    let parts: Vec<_> = (0..number_of).map(|number| Object::new(&format!("part {number}"), PART)).collect();
    let (parts, index) = (Arc::new(parts), Object::new("index", 4096));
    // What is there to download; uploads begin anew each time, and the one before goes.
    let bundle = runtime.block_on(upload(client, &parts, &index))?;

    let put = Contender::new(format!("pouch's relay, {CONNECTIONS} connections"), || {
        let begun = Instant::now();
        let bundle = runtime.block_on(upload(client, &parts, &index))?;
        let cost = Cost { wall: begun.elapsed(), peak: Some(site.peak()) };
        runtime.block_on(client.api.delete_bundle(bundle))?;
        // Its files go in the background.
        std::thread::sleep(Duration::from_millis(500));
        Ok(cost)
    });
    let get = Contender::new(format!("pouch's relay, {CONNECTIONS} connections"), || {
        let begun = Instant::now();
        runtime.block_on(each(number_of, CONNECTIONS, |number| {
            let client = Arc::clone(client);
            async move {
                let part = client.api.get_part(bundle, number as u32, PART).await?;
                if part.len() == PART { Ok(()) } else { Err(Failure::from("a part is short")) }
            }
        }))?;
        Ok(Cost { wall: begun.elapsed(), peak: Some(site.peak()) })
    });
    let mut all = vec![put, get];
    let file = site.folder().join("file");
    let nginx = match (&tools.nginx, &tools.curl) {
        (Some(nginx), Some(curl)) => Some((Nginx::start(nginx, site.folder())?, curl)),
        _ => None,
    };
    if let Some((nginx, curl)) = &nginx {
        make_file(&file, (number_of * PART) as u64)?;
        let (put, get) = (nginx.put(curl, &file), nginx.get(curl));
        let folder = site.folder();
        all.push(Contender::new("curl -T to nginx", move || timed(&put, tools, folder)));
        all.push(Contender::new("curl from nginx", move || timed(&get, tools, folder)));
    }
    run(&mut all, options.rounds)?;
    let bytes = (number_of * PART) as u64;
    let (mut up, mut down) = (vec![], vec![]);
    for (number, contender) in all.into_iter().enumerate() {
        if number % 2 == 0 { up.push(contender) } else { down.push(contender) }
    }
    let size = bytes >> 20;
    table::print(&format!("upload of {size} MiB over TLS, durable (peak: the relay's, curl's)"), bytes, &up);
    table::print(&format!("download of {size} MiB over TLS"), bytes, &down);
    Ok(())
}

async fn upload(
    client: &Arc<Client>,
    parts: &Arc<Vec<Object>>,
    index: &Object,
) -> Result<pouch_statement::BundleId, Failure> {
    let bundle = client.begin(3600, false).await?;
    each(parts.len(), CONNECTIONS, |number| {
        let (client, parts) = (Arc::clone(client), Arc::clone(parts));
        async move {
            let part = parts.get(number).ok_or("no such part")?;
            client.api.put_part(bundle, part.field(number as u32), part.sealed.clone()).await?;
            Ok::<_, Failure>(())
        }
    })
    .await?;
    client.finish(bundle, parts, index, client.mailbox).await?;
    Ok(bundle)
}

/// Each on a connection of its own.
fn many_uploads(options: &Options) -> Result<(), Failure> {
    let site = Site::start(&options.dir, 1, "", "exec")?;
    let client = site.owner()?;
    let (part, before) = (Object::new("part", PART), site.peak());
    let begun = Instant::now();
    runtime()?.block_on(async {
        let bundle = client.begin(3600, false).await?;
        each(UPLOADS, UPLOADS, |number| {
            let (client, part) = (Arc::clone(client), part.clone());
            async move {
                client.api.put_part(bundle, part.field(number as u32), part.sealed).await.map_err(Failure::from)
            }
        })
        .await
    })?;
    say(format_args!("## {UPLOADS} uploads of {} MiB at once, on local disk\n", PART >> 20));
    say(format_args!(
        "{:.2} s; peak RSS of the relay {} MiB, {} MiB before\n",
        begun.elapsed().as_secs_f64(),
        site.peak().div_ceil(1024),
        before.div_ceil(1024)
    ));
    Ok(())
}
