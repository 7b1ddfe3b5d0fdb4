//! With a server that waits in another way in the place of the one that it names, a law does not
//! hold. So no law has an answer of its own.
//!
//! What decides here is counted, ordered or refused, or differs by far more than a busy machine can
//! change it.

use std::path::{Path, PathBuf};

use law::{Lab, Law, Pace, Reason, decide};
use record::Standing;

/// Those of the laws that ask all models.
const MODELS: [&str; 11] = [
    "busy", "serial", "prefork", "threads", "pool", "select", "poll", "epoll", "sigio", "uring",
    "tokio",
];

/// Short, because nothing here is judged by an interval.
const SHORT: Pace = Pace { epochs: 3, part: 0.3 };

/// Where cargo puts the servers: beside the folder of this test.
fn servers() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Whether the servers are built; if not, says so.
fn are_built(names: &[&str]) -> bool {
    let missing = names.iter().find(|name| !servers().join(format!("serve-{name}")).is_file());
    if let Some(name) = missing {
        eprintln!("SKIP serve-{name} is not built (cargo build --workspace)");
    }
    missing.is_none()
}

fn law(id: &str) -> &'static Law {
    law::all().into_iter().find(|law| law.id == id).unwrap()
}

/// How the law stands with `other` in the place of `model`.
fn with(id: &str, model: &str, other: &str, flags: &[&str]) -> Standing {
    let executable = servers().join(format!("serve-{other}"));
    let lab = Lab::new(vec![servers()], SHORT, 1, || false).unwrap();
    standing(law(id), &lab.with_model(model, &executable, flags))
}

fn standing(law: &Law, lab: &Lab) -> Standing {
    match (law.measure)(lab) {
        Ok(mut measured) => decide(law.bounds, &mut measured.figures),
        Err(Reason::NotHere(why)) => Standing::NotHere(why),
        Err(Reason::Skip(why)) => Standing::Skip(why),
        Err(reason) => panic!("{}: {reason:?}", law.id),
    }
}

/// Checks that the law fails with a complaint that has these words.
fn assert_not_here(standing: &Standing, words: &str) {
    match standing {
        Standing::NotHere(why) => assert!(why.contains(words), "{why}"),
        other => panic!("{other:?}, not `{words}`"),
    }
}

#[test]
fn a_server_without_the_limit_of_select_is_not_select() {
    if are_built(&["epoll"]) {
        assert_not_here(&with("L5", "select", "epoll", &[]), "clients served at once is 1100");
    }
}

#[test]
fn a_busy_server_does_not_sleep() {
    if are_built(&MODELS) {
        assert_not_here(&with("L10", "epoll", "busy", &[]), "epoll is ");
        assert_not_here(&with("L10", "busy", "epoll", &[]), "busy is ");
    }
}

#[test]
fn an_event_loop_has_a_seat_for_the_51st() {
    if are_built(&["epoll", "pool"]) {
        let epoll = with("L20", "pool", "epoll", &[]);
        assert_not_here(&epoll, "answers of the 51st while they stay is 6");
        assert_eq!(with("L20", "pool", "pool", &["--threads", "300"]), Standing::Holds);
        let few = with("L20", "pool", "pool", &["--threads", "299"]);
        assert!(matches!(few, Standing::NotHere(_)), "{few:?}");
    }
}

#[test]
fn an_event_loop_is_not_starved_by_idle_clients() {
    if are_built(&["epoll"]) {
        assert_not_here(&with("L24", "pool", "epoll", &[]), "wait of the 5th client");
    }
}

#[test]
fn with_a_thread_each_nobody_stands_in_line() {
    if are_built(&["threads"]) {
        let threads = with("L25", "serial", "threads", &[]);
        assert_not_here(&threads, "wait of the 8th visitor");
        assert_not_here(&threads, "wait behind an idle visitor");
    }
}

#[test]
fn a_server_that_ends_has_no_law() {
    if are_built(&["faulty"]) {
        let dies = with("L20", "pool", "faulty", &["--fault", "die"]);
        assert!(matches!(dies, Standing::NotHere(_)), "{dies:?}");
    }
}

#[test]
#[ignore = "a busy machine stalls every server: make test-quiet runs it"]
fn a_server_that_does_not_stall_has_nothing_to_omit() {
    if are_built(&["floor"]) {
        let floor = with("L17", "faulty", "floor", &[]);
        match floor {
            // The client of a busy machine.
            Standing::Skip(why) => eprintln!("SKIP {why}"),
            floor => assert_not_here(&floor, "p99 from the due time / p99 from the send"),
        }
    }
}

#[test]
fn a_serial_server_serves_one_of_six_connections() {
    if are_built(&["serial"]) {
        // Of the six, five wait for a server that serves one until it leaves.
        assert_not_here(&with("L21", "epoll", "serial", &[]), "of 200 requests were answered");
    }
}

#[test]
fn an_event_loop_has_no_teacher_for_each() {
    if are_built(&["epoll", "threads"]) {
        let epoll = with("L26", "threads", "epoll", &[]);
        assert_not_here(&epoll, "threads: threads for 50 clients is 0");
        let threads = with("L26", "epoll", "threads", &[]);
        assert_not_here(&threads, "epoll: threads for 50 clients is 50");
    }
}

#[test]
fn a_server_that_allows_every_origin_checks_none() {
    if are_built(&["epoll", "floor"]) {
        let open = with("L28", "epoll", "epoll", &["--allow-origin", "*"]);
        assert_not_here(&open, "foreign origin is 101, expected 403");
        let floor = with("L27", "epoll", "floor", &[]);
        assert!(matches!(floor, Standing::NotHere(_)), "{floor:?}");
        assert_eq!(with("L28", "epoll", "epoll", &[]), Standing::Holds);
    }
}

#[test]
fn an_event_loop_has_no_stack_for_a_connection() {
    if are_built(&["epoll", "threads"]) {
        assert_not_here(&with("L7", "threads", "epoll", &[]), "threads, for a connection");
        assert_not_here(&with("L7", "epoll", "threads", &[]), "epoll, for a connection");
    }
}

#[test]
fn system_calls_are_those_of_the_model() {
    if let Some(reason) = rig::counting::unavailable() {
        eprintln!("SKIP {reason}");
    } else if are_built(&["threads", "epoll", "uring"]) {
        assert_not_here(&with("L11", "epoll", "threads", &[]), "epoll, 1 connection is ");
        assert_not_here(&with("L11", "threads", "epoll", &[]), "threads, 1 connection is ");
    }
}

#[test]
fn a_pool_is_not_stopped_by_a_cold_file() {
    // By the number of answers, which a loop cannot give while it reads. Only a disk that is slowed
    // down leaves the pool time for many, on a busy machine too.
    if !Path::new("/sys/fs/cgroup/blkio").is_dir() {
        eprintln!("SKIP the disk cannot be slowed down here: there is no blkio controller");
    } else if are_built(&["pool", "uring"]) {
        match with("L29", "epoll", "pool", &[]) {
            Standing::Skip(why) => eprintln!("SKIP {why}"),
            pool => assert_not_here(&pool, "epoll: answers for each part of the cold file"),
        }
    }
}

#[test]
fn a_model_is_placed_by_what_its_calls_do_and_not_by_its_name() {
    if are_built(&MODELS) {
        for (model, other) in
            [("epoll", "threads"), ("uring", "epoll"), ("busy", "poll"), ("sigio", "prefork")]
        {
            match with("L30", model, other, &[]) {
                Standing::Skip(why) => eprintln!("SKIP {why}"),
                placed => assert_not_here(&placed, "models in their places is 10"),
            }
        }
    }
}
