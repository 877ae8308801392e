# What people do often. The steps themselves are in .ci/run, which needs no `just`.

# List the recipes
default:
    @just --list

# Install what the other recipes need (as root, on Debian and its kin)
tools:
    .ci/run tools

# Check the formatting
fmt:
    .ci/run fmt

# Lint everything, warnings are errors
clippy:
    .ci/run clippy

# Check the client library as an embedder builds it
features:
    .ci/run features

# Build the documentation, warnings are errors
doc:
    .ci/run doc

# Check who may depend on whom, what is pure, and who may touch certificate checks
purity:
    .ci/run purity dangerous

# Check licences, bans and sources of the dependencies
deny:
    .ci/run deny

# Run every test (as root; a test that cannot run fails)
test:
    .ci/run test

# Replay the fuzz corpora on the stable compiler
corpus:
    .ci/run corpus

# Compile the fuzz targets
fuzz-check:
    .ci/run fuzz-check

# Fuzz one target (needs a nightly compiler and cargo-fuzz)
fuzz TARGET SECONDS="60":
    .ci/run fuzz {{TARGET}} {{SECONDS}}

# Check the units, the installer and the scripts
deploy-check:
    .ci/run deploy

# Gateway, client and lab, end to end
demo:
    .ci/run demo

# Count the instructions of the packet path's parts, and compare them with the baseline
instructions:
    .ci/run instructions

# Write the baseline anew, to be committed with the change that moved it
instructions-baseline:
    .ci/run instructions-baseline

# Time the packet path's parts; FILTER is a part of their names
bench FILTER="":
    cargo bench -p adit-bench -- {{FILTER}}

# Compare two builds, such as: just compare main HEAD
compare BASE HEAD *FLAGS:
    cargo run --release --locked -p adit-bench -- compare {{BASE}} {{HEAD}} {{FLAGS}}

# Compare this build with itself TIMES times; no comparison may call it slower
compare-self-check TIMES="20" *FLAGS:
    cargo build --release --locked -p adit-server -p adit-client -p adit-bench
    target/release/adit-bench compare target/release --self-check {{TIMES}} {{FLAGS}}

# Everything, as CI does it
ci:
    .ci/run
