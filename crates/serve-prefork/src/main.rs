//! `serve-prefork`: see the library's text.

fn main() -> std::process::ExitCode {
    let model = &serve_prefork::MODEL;
    kit::run_processes(model, serve_prefork::fork_ahead, serve_prefork::serve)
}
