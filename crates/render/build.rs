//! Lists the chapters under book/, so that `iolab report` has them wherever it runs. A language
//! whose directory is missing has no chapters.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

fn main() {
    let book = Path::new(&env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../book");
    println!("cargo::rerun-if-changed=build.rs");
    let mut code = String::new();
    for language in ["en", "zh"] {
        let directory = book.join(language);
        println!("cargo::rerun-if-changed={}", directory.display());
        let listed = fs::read_dir(&directory).into_iter().flatten();
        let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "md"));
        files.sort();
        let name = language.to_uppercase();
        writeln!(code, "const {name}: &[(&str, &str)] = &[").unwrap();
        for file in files {
            let stem = file.file_stem().unwrap().to_str().unwrap().to_owned();
            writeln!(code, "    ({stem:?}, include_str!({:?})),", file.display().to_string())
                .unwrap();
        }
        code += "];\n";
    }
    fs::write(Path::new(&env::var("OUT_DIR").unwrap()).join("book.rs"), code).unwrap();
}
