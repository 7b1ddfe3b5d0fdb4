//! HTTP/2 against the client of the h2 crate, which shares no code with the server. Conversations
//! are generated: requests, bodies, trailers, settings and windows. The bytes of both directions
//! are cut at random. All heads and bodies must come back as they should.

mod support;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use conn::{Limits, Outcome, Protocol};
use h2::client::{self, Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use support::driver::{Driver, FileReply, Habits};
use support::world::{FakeFile, World, letters, pattern};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Conversations of one run, unless `CONVERSATIONS` sets another number. A failure names its seed.
const CONVERSATIONS: u64 = 100;

const FILE_LEN: u64 = 30_000;

/// Rounds without any progress after which a conversation hangs. The clock moves in each of them.
const IDLE_ROUNDS_MAX: u32 = 50;

/// The client's socket: two queues in memory.
#[derive(Clone, Default)]
struct Pipe(Rc<RefCell<Queues>>);

#[derive(Default)]
struct Queues {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut queues = self.0.borrow_mut();
        let len = queues.to_client.len().min(buffer.remaining());
        if len == 0 {
            return Poll::Pending;
        }
        let bytes: Vec<u8> = queues.to_client.drain(..len).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().to_server.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What must come back.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    status: u16,
    fields: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

struct Exchange {
    response: ResponseFuture,
    upload: Option<Upload>,
    head: Option<Response<()>>,
    reply: Option<RecvStream>,
    got: Vec<u8>,
    ended: bool,
    wanted: Wanted,
}

struct Upload {
    stream: SendStream<Bytes>,
    rest: Bytes,
    trailers: bool,
}

struct Conversation {
    driver: Driver,
    pipe: Pipe,
    rng: StdRng,
    connection: Connection<Pipe, Bytes>,
    requests: SendRequest<Bytes>,
    exchanges: Vec<Exchange>,
    unsent: u32,
    /// Output of the server that the client has not seen.
    arriving: VecDeque<u8>,
}

fn task() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn world() -> World {
    let file = FakeFile {
        path: "a".to_owned(),
        len: FILE_LEN,
        modified_unix_s: 0,
        content_type: "text/plain".to_owned(),
    };
    // The clock moves whenever nothing else does, and no peer is late here.
    let limits = Limits {
        output_high_water_bytes: 20_000,
        body_timeout_ms: u64::from(u32::MAX),
        write_timeout_ms: u64::from(u32::MAX),
        ..Limits::default()
    };
    World::new(Protocol::Http, limits, &[file])
}

impl Conversation {
    fn new(world: &World, seed: u64) -> Conversation {
        let mut rng = StdRng::seed_from_u64(seed);
        let habits = Habits {
            write_max: *[1, 100, usize::MAX].choose(&mut rng).unwrap_or(&1),
            by_chunks: rng.random(),
            read_first: rng.random(),
            early_timeouts: rng.random(),
        };
        let mut driver = Driver::new(world, habits);
        let replies = [FileReply::Prompt, FileReply::Short(777)];
        driver.file_reply = *replies.choose(&mut rng).unwrap_or(&FileReply::Prompt);
        let pipe = Pipe::default();
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(*[300, 5_000, 65_535].choose(&mut rng).unwrap_or(&300))
            .initial_connection_window_size(rng.random_range(65_535..200_000))
            .header_table_size(*[0, 50, 100, 4_096, 65_536].choose(&mut rng).unwrap_or(&0))
            .max_frame_size(rng.random_range(16_384..100_000));
        let mut handshake = Box::pin(builder.handshake(pipe.clone()));
        let Poll::Ready(Ok((requests, connection))) = handshake.as_mut().poll(&mut task()) else {
            panic!("the client sends its preface at once");
        };
        let unsent = rng.random_range(1..30);
        let (exchanges, arriving) = (Vec::new(), VecDeque::new());
        Conversation { driver, pipe, rng, connection, requests, exchanges, unsent, arriving }
    }

    fn ask(&mut self) {
        let text = ("content-type", "text/plain; charset=utf-8".to_owned());
        let length = |body: &[u8]| ("content-length", body.len().to_string());
        let n = self.rng.random_range(0..20_000);
        let (mut method, mut upload) = (Method::GET, None);
        let (path, status, kind, mut body) = match self.rng.random_range(0..8) {
            0 => ("/".to_owned(), 200, text, b"Hello, world!".to_vec()),
            1 => (format!("/bytes/{n}"), 200, text, pattern(0, n)),
            2 => {
                let kind = ("content-type", "text/plain".to_owned());
                ("/files/a".to_owned(), 200, kind, letters(0, FILE_LEN))
            }
            3 => ("/delay/20".to_owned(), 200, text, b"waited for 20 ms\n".to_vec()),
            4 => ("/nope".to_owned(), 404, text, b"no such route; try / or /stats".to_vec()),
            _ => {
                method = Method::POST;
                let body = pattern(n, n + self.rng.random_range(1..40_000));
                upload = Some(Bytes::from(body.clone()));
                let kind = ("content-type", "application/octet-stream".to_owned());
                ("/echo".to_owned(), 200, kind, body)
            }
        };
        let mut request = Request::builder().uri(format!("http://a{path}"));
        let mut fields = vec![kind];
        let announces = self.rng.random();
        if upload.is_none() || announces {
            fields.push(length(&body));
        }
        if method == Method::GET && self.rng.random_ratio(1, 8) {
            (method, body) = (Method::HEAD, Vec::new());
        }
        if let Some(upload) = upload.as_ref().filter(|_| announces) {
            request = request.header("content-length", upload.len());
        }
        if self.rng.random() {
            let urgency = self.rng.random_range(0..8);
            request = request.header("priority", format!("u={urgency}, i"));
            request = request.header("x-field", "y".repeat(self.rng.random_range(0..200)));
        }
        let request = request.method(method).body(()).expect("a request");
        let sent = self.requests.send_request(request, upload.is_none());
        let (response, stream) = sent.expect("a stream");
        let trailers = self.rng.random();
        let upload = upload.map(|rest| Upload { stream, rest, trailers });
        let wanted = Wanted { status, fields, body };
        let (head, reply, got) = (None, None, Vec::new());
        self.exchanges.push(Exchange { response, upload, head, reply, got, ended: false, wanted });
    }

    /// Moves some bytes and polls everything; true if anything changed.
    fn round(&mut self) -> bool {
        let mut moved = false;
        if self.unsent > 0 && self.requests.poll_ready(&mut task()).is_ready() {
            self.ask();
            self.unsent -= 1;
            moved = true;
        }
        for exchange in &mut self.exchanges {
            moved |= exchange.poll(&mut self.rng);
        }
        let ended = Pin::new(&mut self.connection).poll(&mut task());
        assert!(ended.is_pending(), "{ended:?}");
        let mut sent = std::mem::take(&mut self.pipe.0.borrow_mut().to_server);
        while !sent.is_empty() {
            let most = 1usize << self.rng.random_range(0..16);
            let len = self.rng.random_range(1..=most).min(sent.len());
            let rest = sent.split_off(len);
            self.driver.arrive(&sent);
            sent = rest;
            moved = true;
        }
        self.arriving.extend(self.driver.take_output());
        let most = 1usize << self.rng.random_range(0..16);
        let len = self.rng.random_range(1..=most).min(self.arriving.len());
        self.pipe.0.borrow_mut().to_client.extend(self.arriving.drain(..len));
        moved || len > 0
    }

    fn is_over(&self) -> bool {
        self.unsent == 0 && self.exchanges.iter().all(|exchange| exchange.ended)
    }
}

impl Exchange {
    fn poll(&mut self, rng: &mut StdRng) -> bool {
        let mut moved = self.upload(rng);
        if self.head.is_none()
            && let Poll::Ready(response) = Pin::new(&mut self.response).poll(&mut task())
        {
            let (parts, reply) = response.expect("a reply").into_parts();
            self.head = Some(Response::from_parts(parts, ()));
            self.reply = Some(reply);
            moved = true;
        }
        let Some(reply) = self.reply.as_mut().filter(|_| rng.random()) else { return moved };
        match reply.poll_data(&mut task()) {
            Poll::Ready(Some(data)) => {
                let data = data.expect("DATA");
                self.got.extend_from_slice(&data);
                reply.flow_control().release_capacity(data.len()).expect("a window");
                true
            }
            Poll::Ready(None) => {
                moved |= !std::mem::replace(&mut self.ended, true);
                moved
            }
            Poll::Pending => moved,
        }
    }

    fn upload(&mut self, rng: &mut StdRng) -> bool {
        let Some(upload) = &mut self.upload else { return false };
        if upload.rest.is_empty() {
            if upload.trailers {
                let mut trailers = HeaderMap::new();
                trailers.insert("x-trailer", "y".parse().expect("a value"));
                upload.stream.send_trailers(trailers).expect("trailers");
            } else {
                upload.stream.send_data(Bytes::new(), true).expect("the end");
            }
            self.upload = None;
            return true;
        }
        let most = 1usize << rng.random_range(0..15);
        upload.stream.reserve_capacity(most.min(upload.rest.len()));
        let _ = upload.stream.poll_capacity(&mut task());
        let len = upload.stream.capacity().min(most).min(upload.rest.len());
        if len == 0 {
            return false;
        }
        upload.stream.send_data(upload.rest.split_to(len), false).expect("DATA");
        true
    }

    fn check(&self, seed: u64) {
        let head = self.head.as_ref().expect("a head");
        assert_eq!(head.status().as_u16(), self.wanted.status, "seed {seed}");
        assert!(head.headers().contains_key("date"), "seed {seed}");
        for (name, value) in &self.wanted.fields {
            let got: Vec<_> = head.headers().get_all(*name).iter().collect();
            assert_eq!(got, [value.as_str()], "seed {seed}: {name}");
        }
        let known = ["date", "etag", "last-modified", "accept-ranges"];
        let more = head.headers().keys().filter(|name| {
            let wanted = self.wanted.fields.iter().any(|(wanted, _)| wanted == name);
            !wanted && !known.contains(&name.as_str())
        });
        assert_eq!(more.count(), 0, "seed {seed}: {:?}", head.headers());
        assert!(self.got == self.wanted.body, "seed {seed}: {} bytes", self.got.len());
    }
}

#[test]
fn the_client_of_another_library_gets_what_it_asked_for() {
    let count = std::env::var("CONVERSATIONS").ok().and_then(|text| text.parse().ok());
    for seed in 0..count.unwrap_or(CONVERSATIONS) {
        let world = world();
        let mut conversation = Conversation::new(&world, seed);
        let mut idle_rounds = 0;
        while !conversation.is_over() {
            if conversation.round() {
                idle_rounds = 0;
            } else {
                // Only a delay can bring the rest, or the other half of the client's polls.
                idle_rounds += 1;
                assert!(idle_rounds < IDLE_ROUNDS_MAX, "seed {seed} hangs");
                conversation.driver.pass(Duration::from_millis(5));
            }
        }
        conversation.exchanges.iter().for_each(|exchange| exchange.check(seed));
        let requests = conversation.exchanges.len() as u64;
        assert_eq!(world.totals().requests, requests, "seed {seed}");
        assert!(conversation.driver.conn.is_idle(), "seed {seed}");
        conversation.driver.arrive_eof();
        assert_eq!(conversation.driver.ended(), Some(Outcome::Completed), "seed {seed}");
    }
}
