//! `serve-poll`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_poll::MODEL, serve_poll::serve)
}
