//! `serve-sigio`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_sigio::MODEL, serve_sigio::serve)
}
