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

# Build the documentation, warnings are errors
doc:
    .ci/run doc

# Check that the core depends on no runtime, socket or TLS stack, and who may touch certificate checks
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

# Everything, as CI does it
ci:
    .ci/run
