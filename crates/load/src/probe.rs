//! One verified request before any load: a server that sends wrong replies must not be measured,
//! and the body of HTTP replies is learnt here. It uses the same sockets, TLS and greeting as the
//! load.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::codec::Codec;
use crate::dialogue::{Dialogue, DialogueSetup, Failure};
use crate::expected::Expected;
use crate::socket::Sockets;
use crate::{Error, ExpectedBody, Method, Plan};

/// connect(2) may take so long, even if the request timeout is shorter: a lost SYN is sent again
/// after a second (tcp(7)).
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// The plan with the first address of its host that accepts a connection. A name such as localhost
/// often has an address of each family, and a server listens on one of them.
pub(crate) fn reached(plan: &Plan) -> Result<Plan, Error> {
    let mut plan = plan.clone();
    let others = std::mem::take(&mut plan.target.others);
    if others.is_empty() {
        return Ok(plan);
    }
    let limit = plan.request_timeout.max(CONNECT_LIMIT);
    let mut tried: Vec<(SocketAddr, io::Error)> = Vec::new();
    for address in std::iter::once(plan.target.address).chain(others) {
        if tried.iter().any(|(earlier, _)| *earlier == address) {
            continue;
        }
        match TcpStream::connect_timeout(&address, limit) {
            Ok(_) => {
                plan.target.address = address;
                return Ok(plan);
            }
            Err(error) => tried.push((address, error)),
        }
    }
    Err(Error::NoAddress { tried })
}

/// Sends one request on its own connection and verifies the reply with `codec`. In a fan-out there
/// are two connections: one sends, the other must receive.
pub(crate) fn verify<C: Codec>(plan: &Plan, sockets: &Sockets, codec: &mut C) -> Result<(), Error> {
    converse(plan, sockets, codec).map_err(|failure| match failure {
        Failure::Connect(source) => Error::Unreachable { address: plan.target.address, source },
        Failure::Late(missing) => Error::NoReply { url: plan.target.url.clone(), missing },
        Failure::Reply(reason) => Error::Probe { url: plan.target.url.clone(), reason },
        Failure::Internal(error) => error,
    })
}

fn converse<C: Codec>(plan: &Plan, sockets: &Sockets, codec: &mut C) -> Result<(), Failure> {
    let mut setup = DialogueSetup::new(plan, sockets, codec)?;
    let members = if plan.fan_out { 2 } else { 1 };
    let mut dialogues: Vec<_> =
        (0..members).map(|slot| setup.begin(slot, slot)).collect::<Result<_, _>>()?;
    let end = Instant::now() + plan.request_timeout.max(CONNECT_LIMIT);
    while !dialogues.iter().all(Dialogue::is_open) {
        setup.turn(&mut dialogues, end)?;
    }
    match dialogues.as_mut_slice() {
        [one] => one.ask(),
        [sender, receivers @ ..] => {
            sender.send_unanswered();
            receivers.iter_mut().for_each(Dialogue::await_message);
        }
        [] => {}
    }
    let answered = |dialogues: &[Dialogue<C::Reader>]| {
        dialogues.last().is_none_or(|dialogue| dialogue.replies > 0)
    };
    let end = Instant::now() + plan.request_timeout;
    while !answered(&dialogues) {
        setup.turn(&mut dialogues, end)?;
    }
    dialogues.iter_mut().for_each(|dialogue| setup.end(dialogue));
    Ok(())
}

/// Asks the server what the replies to `plan` look like. `codec` makes a codec with given
/// expectations, `learnt` returns what it has learnt.
pub(crate) fn expected_body<C: Codec>(
    plan: &Plan,
    sockets: &Sockets,
    codec: impl Fn(Expected) -> C,
    learnt: impl Fn(&C) -> Option<Expected>,
) -> Result<Expected, Error> {
    let post = plan.method == Method::Post;
    let path = plan.target.path.split('?').next().unwrap_or_default();
    let learn = || -> Result<Option<Expected>, Error> {
        let mut codec = codec(Expected::Learn);
        verify(plan, sockets, &mut codec)?;
        Ok(learnt(&codec))
    };
    let expected = match plan.expected_body {
        ExpectedBody::Any => Expected::Any,
        // A reply to HEAD has no body to learn.
        _ if plan.method == Method::Head => Expected::Any,
        ExpectedBody::Auto if post && path == "/echo" => Expected::Echo,
        ExpectedBody::Auto if !post && bytes_rule(path).is_some() => {
            Expected::Alphabet(bytes_rule(path).unwrap_or_default())
        }
        _ => match (learn()?, learn()?) {
            (Some(first), Some(second)) if first == second => first,
            _ => {
                let url = plan.target.url.clone();
                let reason = "two requests were answered with different bodies; do not compare \
                              bodies (--expect-body any)";
                return Err(Error::Probe { url, reason: reason.to_owned() });
            }
        },
    };
    verify(plan, sockets, &mut codec(expected.clone())).map_err(|error| explain(error, plan))?;
    Ok(expected)
}

/// N in `/bytes/N`.
fn bytes_rule(path: &str) -> Option<u64> {
    path.strip_prefix("/bytes/")?.parse().ok()
}

/// Adds the remedy if an assumption about a route was wrong.
fn explain(error: Error, plan: &Plan) -> Error {
    let assumed = plan.expected_body == ExpectedBody::Auto;
    match error {
        Error::Probe { url, reason } if assumed && reason.contains("body") => Error::Probe {
            url,
            reason: format!(
                "{reason}; if this server's replies are right, compare with its first ones \
                 (--expect-body learnt) or do not compare bodies (--expect-body any)"
            ),
        },
        error => error,
    }
}
