//! `serve-faulty`: see the library's text.

fn main() -> std::process::ExitCode {
    responder::run(responder::Name::Faulty)
}
