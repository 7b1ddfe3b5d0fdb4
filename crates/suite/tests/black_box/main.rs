//! Every server that was built, in each of its flavours, through the same cases.
//!
//! A case is a function of a running server's flags and sockets; the table below is cases x
//! variants, so a failure names model, flavour and case, and `cargo test -p suite --test black_box
//! epoll` or `... stop::` picks a row or a column. A model that cannot run on this machine is
//! reported as ignored, with its reason. What a model cannot do by its nature (serve two at once,
//! say) is asserted as such and not left out. With `--grade PATH` it is one executable that goes
//! through them, for points (`grade`).

mod accepting;
mod chat;
mod company;
mod contract;
mod curl;
mod echo;
mod errors;
mod exhaustion;
mod files;
mod floods;
mod grade;
mod http2;
mod in_time;
mod limits;
mod news;
mod requests;
mod secure;
mod soak;
mod stop;
mod tls;
mod unanswered;
mod websocket;

use std::process::ExitCode;
use std::sync::Arc;

use http2::{limits as http2_limits, stop as http2_stop, tools as http2_tools};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use suite::{Variant, catalog};

/// Which variants of a model a case is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// One process is enough: nothing in it depends on how the model waits.
    Model,
    /// Every flavour.
    Flavours,
}

/// What came of a case that did not fail.
enum Outcome {
    Passed,
    /// The machine, or the model by its own description, has no place for it.
    Skipped(String),
}

impl Outcome {
    fn skipped(reason: &str) -> Outcome {
        Outcome::Skipped(reason.to_owned())
    }
}

/// What a case returns; failures are panics, at the line that saw them.
trait IntoOutcome {
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Passed
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

/// One row of the table.
struct Case {
    name: &'static str,
    scope: Scope,
    run: Box<dyn Fn(&Variant) -> Outcome + Send + Sync>,
}

fn case<R: IntoOutcome + 'static>(
    name: &'static str,
    scope: Scope,
    run: fn(&Variant) -> R,
) -> Case {
    Case { name, scope, run: Box::new(move |variant| run(variant).into_outcome()) }
}

/// A list of cases named after their functions.
macro_rules! cases {
    ($scope:ident: $($module:ident::$function:ident),+ $(,)?) => {
        vec![$(case(
            concat!(stringify!($module), "::", stringify!($function)),
            Scope::$scope,
            $module::$function,
        )),+]
    };
}

fn table() -> Vec<Case> {
    let mut cases = contract_cases();
    cases.extend(echo_cases());
    cases.extend(http_cases());
    cases.extend(limit_cases());
    cases.extend(chat_cases());
    cases.extend(websocket_cases());
    cases.extend(tls_cases());
    cases.extend(http2_cases());
    cases
}

fn chat_cases() -> Vec<Case> {
    cases![Flavours:
        chat::reaches_all_others,
        chat::across_loops,
        chat::burst_is_whole,
        chat::all_talk_at_once,
        chat::slow_member_is_dropped,
        chat::stuck_listener_may_speak,
        chat::newcomers_and_leavers,
        chat::clock_in_a_flood,
        chat::clocks_beside_each_other,
        chat::threads_of_a_member,
        chat::open_websockets_are_closed,
        chat::silent_websockets_are_cut,
    ]
}

fn websocket_cases() -> Vec<Case> {
    let mut cases = cases![Model: websocket::upgrade_is_refused, websocket::origin_is_checked];
    cases.extend(cases![Flavours:
        websocket::upgrade_is_answered,
        websocket::frames_right_behind_the_upgrade,
        websocket::echo_of_every_length,
        websocket::echo_in_order,
        websocket::echo_of_fragments,
        websocket::byte_at_a_time,
        websocket::pings,
        websocket::closing,
        websocket::faults_have_codes,
    ]);
    cases
}

fn tls_cases() -> Vec<Case> {
    let mut cases = cases![Model:
        tls::mistakes_get_one_sentence,
        tls::certificate_is_made_once,
        tls::certificate_of_files,
        tls::files_of_the_wrong_kind,
        tls::files_of_the_command_that_is_named,
    ];
    cases.extend(cases![Flavours:
        tls::curl_over_both_versions,
        tls::protocol_is_negotiated,
        tls::sessions_are_resumed,
        tls::plain_text_is_refused,
        tls::absolute_form_over_tls,
        tls::websocket_over_tls,
        tls::wide_windows_unread,
    ]);
    cases
}

fn contract_cases() -> Vec<Case> {
    let mut cases = cases![Model:
        contract::first_line_names_address_model_and_pid,
        contract::describe_is_one_line_of_json,
        contract::describe_offers_every_protocol,
        contract::describe_shows_the_limits_in_force,
        contract::help_explains,
        contract::mistakes_get_one_sentence,
        contract::port_in_use_is_refused,
        contract::workers,
        contract::memory_is_its_own,
        company::pool_is_bounded,
        company::killed_process_costs_its_client,
        curl::get_and_head,
        curl::keep_alive_is_reused,
        curl::post_and_upload,
        curl::http_1_0,
        curl::ranges,
        soak::both_sides_count_alike,
    ];
    cases.extend(cases![Flavours:
        contract::last_line_counts,
        stop::sigint_stops_too,
        stop::idle_connections_are_closed,
        stop::silent_newcomers_are_closed,
        stop::request_in_flight_is_finished,
        stop::download_in_flight_is_finished,
        stop::newcomers_are_turned_away,
        stop::stuck_reader_is_cut,
        stop::late_reply_is_cut,
        stop::second_signal_cuts,
        stop::flood_does_not_hold_it_up,
        unanswered::requests_in_sockets,
        unanswered::queue_of_a_full_server,
        unanswered::streams_that_cross_goaway,
        unanswered::websockets_are_answered_and_told,
        unanswered::nothing_is_lost_under_load,
    ]);
    cases
}

fn echo_cases() -> Vec<Case> {
    cases![Flavours:
        echo::bytes_come_back,
        echo::byte_at_a_time,
        echo::mebibyte_while_reading,
        echo::half_close,
        echo::half_close_behind_unread_output,
        echo::client_that_only_writes,
        echo::many_connections,
        echo::hang_ups_and_resets,
        echo::idle_timeout,
        company::echo_beside_a_flood,
    ]
}

fn http_cases() -> Vec<Case> {
    cases![Flavours:
        requests::hello,
        requests::keep_alive,
        requests::connection_close,
        requests::http_1_0,
        requests::head_has_no_body,
        requests::byte_at_a_time,
        requests::pipelined_in_order,
        requests::lenient_where_the_rfc_is,
        requests::post_by_length,
        requests::post_chunked,
        requests::post_streams,
        requests::expect_continue,
        requests::routes,
        requests::stats_count,
        requests::work_burns,
        requests::bytes_to_a_slow_reader,
        files::content_and_type,
        files::conditional,
        files::ranges,
        files::head_and_methods,
        files::index,
        files::no_way_out,
        files::large_file_is_intact,
        files::pipelined_files,
        files::file_that_shrank,
        company::delay_is_not_early,
        company::delay_is_not_early_behind_work,
        company::delay_beside_others,
        company::work_beside_others,
        company::timers_are_due_in_a_flood,
        company::stuck_reader_beside_others,
        news::polling_and_long_polling,
        news::events,
    ]
}

fn limit_cases() -> Vec<Case> {
    let mut cases = cases![Model: errors::malformed_heads, errors::malformed_chunks];
    cases.extend(cases![Flavours:
        errors::refusals,
        errors::reply_reaches_a_client_that_keeps_sending,
        errors::unfinished_requests,
        errors::reset_right_behind_bytes,
        limits::head_timeout,
        limits::body_timeout,
        limits::idle_timeout,
        limits::write_timeout,
        limits::linger_is_bounded,
        limits::keepalive_requests,
        limits::conns_max,
        in_time::beside_work,
        in_time::while_stopped,
        in_time::while_stopped_in_other_protocols,
        in_time::while_stopped_over_tls,
        in_time::slow_reader_is_served,
        in_time::slow_reader_of_other_protocols,
        floods::websocket_messages,
        floods::http2_pings,
        floods::resets,
        accepting::failures_pass,
        accepting::failures_concern_newcomers_only,
        accepting::faults_of_the_server_end_it,
        accepting::burst_is_taken_in_parts,
        exhaustion::descriptors_run_out,
        exhaustion::signals_run_out,
        exhaustion::limit_follows_descriptors,
        exhaustion::crowd,
        exhaustion::crowd_beside_files,
        exhaustion::threads_run_out,
        exhaustion::second_threads_run_out,
        exhaustion::memory_is_bounded,
        exhaustion::memory_is_given_back,
        exhaustion::tables_of_a_crowd_are_given_back,
    ]);
    cases
}

/// Those that need a server of their own; the rules of RFC 9113 are [`http2::rows`].
fn http2_cases() -> Vec<Case> {
    let mut cases = cases![Model:
        http2_tools::curl,
        http2_tools::nghttp,
        http2_tools::h2load,
    ];
    cases.extend(cases![Flavours:
        http2_limits::rapid_reset,
        http2_limits::resets_provoked,
        http2_limits::continuation_flood,
        http2_limits::header_list_too_large,
        http2_limits::hpack_bomb,
        http2_limits::ping_flood_unread,
        http2_limits::settings_flood_unread,
        http2_limits::wide_windows_unread,
        http2_limits::answers_unread,
        http2_limits::ping_flood_read,
        http2_limits::frames_without_effect,
        http2_limits::stuck_streams,
        http2_limits::stalled_streams,
        http2_limits::stuck_uploads,
        http2_limits::idle_timeout,
        http2_limits::preface_timeout,
        http2_limits::keepalive_requests,
        http2_stop::idle_connections_are_told,
        http2_stop::open_streams_are_finished,
        http2_stop::stuck_stream_is_cut,
    ]);
    cases
}

/// Models whose HTTP/2 is tested over TLS too. TLS lies inside the protocol core, so what a model
/// can do wrong is how it passes bytes on: one of each kind (readiness, blocking calls,
/// completions, tasks).
const HTTP2_OVER_TLS: &[&str] = &["epoll", "threads", "uring", "tokio"];

fn trials(variants: &[Variant]) -> Vec<Trial> {
    let mut trials = Vec::new();
    let covered = || {
        http2::h2spec::is_covered();
        Ok(())
    };
    trials.push(Trial::test("http2::h2spec_is_covered", covered));
    trials.extend(grade::tests::trials());
    for variant in variants {
        let mut tests = tests_of(variant);
        if HTTP2_OVER_TLS.contains(&variant.label.as_str()) {
            tests.extend(http2_rows(variant, "http2_over_tls", true));
        }
        for test in tests {
            let variant = variant.clone();
            let full = format!("{}::{}", variant.label, test.name);
            let body = move || run(&test.name, &variant, test.run);
            trials.push(Trial::ignorable_test(full, body));
        }
    }
    trials
}

/// A case of one server, ready to run.
struct Test {
    /// Module and function, or `http2::` and rule.
    name: String,
    run: Box<dyn FnOnce() -> Outcome + Send>,
}

fn tests_of(variant: &Variant) -> Vec<Test> {
    let is_for = |case: &Case| case.scope == Scope::Flavours || variant.flags.is_empty();
    let cases = table().into_iter().filter(is_for).map(|case| {
        let variant = variant.clone();
        Test { name: case.name.to_owned(), run: Box::new(move || (case.run)(&variant)) }
    });
    cases.chain(http2_rows(variant, "http2", false)).collect()
}

fn http2_rows(variant: &Variant, prefix: &'static str, over_tls: bool) -> Vec<Test> {
    // One server for all rows: the last one that runs stops it.
    let shared = http2::Shared::new(variant, over_tls);
    let test = |(row, how)| {
        let shared = Arc::clone(&shared);
        Test { name: format!("{prefix}::{row}"), run: Box::new(move || shared.run(how)) }
    };
    http2::rows().into_iter().map(test).collect()
}

fn run(
    name: &str,
    variant: &Variant,
    body: impl FnOnce() -> Outcome,
) -> Result<Completion, Failed> {
    let outcome = match variant.model.unavailable() {
        Some(reason) => Outcome::skipped(reason),
        None => body(),
    };
    match outcome {
        Outcome::Passed => Ok(Completion::Completed),
        Outcome::Skipped(reason) => {
            println!("SKIP {}::{name}: {reason}", variant.label);
            Ok(Completion::ignored_with(reason))
        }
    }
}

/// Cases that run at once. Most of them wait more than they work, so a few more than there are
/// cores; each has a server of its own, and a busy one takes a core.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from) + 2
}

fn main() -> ExitCode {
    // The crowd needs more descriptors than the soft limit of most machines.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it may not be raised, the crowd says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.first().is_some_and(|first| first == "--grade") {
        return grade::run(&given[1..]);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(threads()));
    match catalog() {
        Ok(variants) => libtest_mimic::run(&arguments, trials(&variants)).exit_code(),
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::FAILURE
        }
    }
}
