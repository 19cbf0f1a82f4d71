//! The program: parse the command line, run it, exit.

fn main() -> std::process::ExitCode {
    countersign::cli::run()
}
