//! Measures a link: `cargo run -p link --example accuracy -- rtt=40ms,rate=10mbit,loss=1% 10000`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let profile = arguments.next().ok_or("usage: accuracy PROFILE [PACKETS]")?.parse()?;
    let packets = arguments.next().map_or(Ok(1_000), |packets| packets.parse())?;
    let link = link::Link::up(&profile)?;
    println!("{}", link::Accuracy::measure(&link, packets)?);
    Ok(())
}
