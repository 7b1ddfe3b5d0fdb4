//! `serve-busy`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_busy::MODEL, serve_busy::serve)
}
