//! `serve-uring`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_uring::MODEL, serve_uring::serve)
}
