//! `serve-epoll`: see the library's text.

fn main() -> std::process::ExitCode {
    kit::run(&serve_epoll::MODEL, serve_epoll::serve)
}
