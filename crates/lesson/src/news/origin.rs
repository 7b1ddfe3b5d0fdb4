//! A page of another site: what may it do with this server, over HTTP and over a WebSocket? The
//! client sends what a browser sends for such a page: its Origin, and the cookies of this server.

use rig::client::{Client, Failed};

use crate::wire::upgrade;
use crate::{Refused, Stage};

/// The site of the page (RFC 6454), and a cookie that the user has for this server.
const ORIGIN: &str = "http://other.example";
const FIELDS: &str = "Origin: http://other.example\r\nCookie: session=of-the-user\r\n";

pub(super) fn run(stage: &mut Stage) -> Result<(), Refused> {
    fetch(stage)?;
    connect(stage, "origin-checked", "a WebSocket for a page of another site", &[])?;
    let allowed = ["--allow-origin", ORIGIN];
    connect(stage, "origin-allowed", "the same with --allow-origin", &allowed)
}

/// A GET as fetch() sends it.
fn fetch(stage: &mut Stage) -> Result<(), Refused> {
    let title = "a GET for a page of another site";
    let run = stage.arrangement("origin-fetch", title, None);
    let Some(site) = stage.start(run)? else { return Ok(()) };
    let address = site.address();
    let head = site.as_client(|| {
        let mut client = Client::open(address)?;
        client.ask("/", FIELDS)?;
        client.head()
    })??;
    site.stop()?;
    stage.figure("origin-fetch", "status", f64::from(head.status));
    stage.figure("origin-fetch", "allows_origin", f64::from(u8::from(head.allows_origin)));
    Ok(())
}

/// A WebSocket as `new WebSocket()` opens it.
fn connect(stage: &mut Stage, name: &str, title: &str, arguments: &[&str]) -> Result<(), Refused> {
    let mut run = stage.arrangement(name, title, None);
    run.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let Some(site) = stage.start(run)? else { return Ok(()) };
    let address = site.address();
    let (status, sent) = site.as_client(|| {
        let mut client = Client::open(address)?;
        let status = upgrade(&mut client, "/ws/chat", FIELDS)?;
        Ok::<_, Failed>((status, client.bytes_sent()))
    })??;
    let arrived = site.stop()?.counter("bytes_received")?;
    stage.figure(name, "status", f64::from(status));
    stage.figure(name, "bytes_sent", sent as f64);
    stage.figure(name, "server_bytes_received", arrived);
    Ok(())
}
