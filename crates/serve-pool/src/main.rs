//! `serve-pool`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_pool::MODEL, serve_pool::serve)
}
