//! The runtime, and the threads beside its loop. One that cannot be started must not cost a
//! connection, so those that are needed are started at once and kept.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use conn::FileRead;
use kit::{Stop, Worker};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// How long a thread that reads files stays without work: as long as the server runs, because
/// another one may not be had.
const BLOCKING_KEEP_ALIVE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(crate) fn runtime(worker: &Worker) -> io::Result<Runtime> {
    let mut builder = match worker.flavour("runtime") {
        "multi-thread" => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_io().enable_time().thread_keep_alive(BLOCKING_KEEP_ALIVE).build()
}

/// Starts the first thread that reads files, if there are any. Where the runtime can start no
/// other, reads wait for this one; without any it would end the task that wants to read.
pub(crate) async fn start_reader(worker: &Worker) -> io::Result<()> {
    if !worker.files.is_empty() {
        tokio::task::spawn_blocking(|| ()).await?;
    }
    Ok(())
}

/// What is ready when the server is to stop. Waits on a thread of its own: one of the runtime's may
/// be the only one that there is for files.
pub(crate) fn stop_signal(stop: &Arc<Stop>) -> io::Result<oneshot::Receiver<()>> {
    let (signal, stopped) = oneshot::channel();
    let stop = Arc::clone(stop);
    thread::Builder::new().name("stop".to_owned()).spawn(move || {
        stop.wait();
        // The receiver is gone only when the loop has failed.
        let _ = signal.send(());
    })?;
    Ok(stopped)
}

/// A read on one of the runtime's blocking threads.
pub(crate) async fn read_file(worker: &Arc<Worker>, part: FileRead) -> io::Result<bytes::Bytes> {
    let worker = Arc::clone(worker);
    tokio::task::spawn_blocking(move || worker.files.read(&part)).await?
}

/// Lets those who are connected have their turn after some newcomers. How many of the `open` ones
/// are busy the runtime does not tell: so it may be as many as there are.
pub(crate) async fn give_way(accepted: &mut usize, open: usize) {
    *accepted += 1;
    if *accepted >= kit::accepts_per_round(open) {
        *accepted = 0;
        tokio::task::yield_now().await;
    }
}
