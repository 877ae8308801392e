//! Replays the committed fuzzing corpus on the stable toolchain, and writes its seeds.
//!
//! `cargo test -p adit-proto --test corpus -- --ignored` writes the seeds of `corpus/seeds.rs` anew. What the fuzzer
//! found worth keeping lies beside them.

#[path = "corpus/seeds.rs"]
mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use adit_proto::fuzzing::BODIES;
use proptest::prelude::*;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn corpus_folder(target: &str) -> PathBuf {
    fuzz_folder().join("corpus").join(target)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("folder can be listed").path()).collect();
    files.sort();
    files
}

#[test]
fn every_input_of_the_corpus_passes() {
    for (target, body) in BODIES {
        let inputs = files(&corpus_folder(target));
        assert!(!inputs.is_empty(), "corpus of {target} is empty");
        for path in inputs {
            let input = fs::read(&path).unwrap();
            assert!(catch_unwind(|| body(&input)).is_ok(), "{} fails", path.display());
        }
    }
}

proptest! {
    /// A poor man's fuzzer, for the runs between those of the real one.
    #[test]
    fn mutated_seeds_pass(
        seed in proptest::sample::select(seeds::all()),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0_u8..3), 1..8),
    ) {
        let mut input = seed.input;
        for (place, byte, change) in changes {
            let place = place.index(input.len() + 1);
            match (change, input.get_mut(place)) {
                (0, Some(old)) => *old = byte,
                (1, Some(_)) => drop(input.remove(place)),
                _ => input.insert(place, byte),
            }
        }
        let (_, body) = BODIES.into_iter().find(|(target, _)| *target == seed.target).expect("every target has a body");
        body(&input);
    }
}

#[test]
fn empty_input_passes_everywhere() {
    for (_, body) in BODIES {
        body(&[]);
    }
}

#[test]
fn every_body_has_a_target_and_a_corpus_and_the_other_way_round() {
    let bodies: BTreeSet<String> = BODIES.iter().map(|(target, _)| (*target).to_owned()).collect();
    let stems = |folder: &str| -> BTreeSet<String> {
        let files = files(&fuzz_folder().join(folder));
        files.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    };
    assert_eq!(stems("fuzz_targets"), bodies);
    assert_eq!(stems("corpus"), bodies);
    assert_eq!(seeds::all().into_iter().map(|seed| seed.target.to_owned()).collect::<BTreeSet<_>>(), bodies);
}

#[test]
fn every_seed_is_committed() {
    for seed in seeds::all() {
        let path = corpus_folder(seed.target).join(seed.name);
        let committed =
            fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; write the seeds anew", path.display()));
        assert_eq!(committed, seed.input, "{} is not what its generator makes", path.display());
    }
}

#[test]
#[ignore = "writes into the source tree"]
fn write_seeds() {
    for seed in seeds::all() {
        let folder = corpus_folder(seed.target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(seed.name), seed.input).unwrap();
    }
}
