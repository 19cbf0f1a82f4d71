//! `countersign schema`: JSON Schemas for editors.

use super::{Failure, print};
use crate::domain::policy::PolicyFile;

/// Print the JSON Schema of a file, for editors
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: countersign schema policy > policy.schema.json
Then put this line first in a policy file, for editors that know Taplo:
  #:schema ./policy.schema.json")]
pub(super) struct Arguments {
    /// Of which file
    #[arg(value_enum)]
    file: File,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum File {
    /// A file in tool-policies
    Policy,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let File::Policy = arguments.file;
    let schema = schemars::schema_for!(PolicyFile);
    print(&serde_json::to_string_pretty(&schema).map_err(|error| Failure::said(error.to_string()))?);
    Ok(())
}
