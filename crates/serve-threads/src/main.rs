//! `serve-threads`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_threads::MODEL, serve_threads::serve)
}
