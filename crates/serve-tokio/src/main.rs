//! `serve-tokio`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_tokio::MODEL, serve_tokio::serve)
}
