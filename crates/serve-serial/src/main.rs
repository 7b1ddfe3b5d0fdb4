//! `serve-serial`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_serial::MODEL, serve_serial::serve)
}
