//! `serve-select`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_select::MODEL, serve_select::serve)
}
