//! placeholder
use crate::Failure;
/// Serve.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn run(_: &Args) -> Result<(), Failure> {
    Err(Failure::Usage(anyhow::anyhow!("not yet")))
}
