//! Countersign: nothing risky runs until a named person countersigns it.
//!
//! An approval gateway for MCP tool calls. It stands between an LLM client and an MCP server, forwards everything as it
//! came, and takes `tools/call` apart: scored from its arguments under the tool's policy, then allowed, refused, or held
//! until a named person approves *that exact call*. Only then is a credential minted, the tool invoked with it, and the
//! credential revoked. Every step is in a tamper-evident record.
//!
//! # The house
//!
//! Six rooms in a row; each knows only those below it (`tests/suite/architecture.rs` holds the arrows).
//!
//! | room | what it does |
//! | --- | --- |
//! | [`cli`] | one file per verb |
//! | [`app`] | config, build, run: alone knows which adapters exist |
//! | [`downstream`] | the front door: MCP over stdio and HTTP, who asks, every word an agent is told |
//! | [`gateway`] | the route of a call, step by step; hold, run, review, sweep |
//! | [`adapters`] | do, never decide: [`store`](adapters::store), [`upstream`](adapters::upstream), [`credential`](adapters::credential), [`channel`](adapters::channel) |
//! | [`domain`] | decides, never does: no I/O, no clock, no `async` |
//!
//! Beside them: [`system`] (time and chance), [`metrics`], and [`sample`] (the ledger server of the demo and the tests).
//!
//! # The route of one call
//!
//! 1. [`ToolCall::parse`](domain::call::ToolCall::parse): strict; canonical arguments.
//! 2. [`PolicySet::for_tool`](domain::policy::PolicySet::for_tool): there is always a policy.
//! 3. [`risk::observe`](domain::risk::observe) and the policy's rules: findings.
//! 4. [`score::assess`](domain::risk::score::assess): their sum.
//! 5. [`decide`](domain::decision::decide): allow, ask, deny. Only it makes [`Allowed`](domain::decision::Allowed).
//! 6. [`Store::commit`](adapters::store::Store::commit): decision, approval and audit record in one transaction.
//! 7. [`Channel::ask`](adapters::channel::Channel::ask), and the call is held; the same call repeated attaches.
//! 8. [`ReviewDesk::review`](adapters::channel::ReviewDesk::review): people's verdicts, through ordered checks.
//! 9. [`Stage::redeem`](domain::approval::Stage::redeem): everything is looked at again; exactly one redeemer wins. Only
//!    it makes [`Redeemed`](domain::approval::Redeemed).
//! 10. [`Permit::new`](domain::permit::Permit::new): a grant *and* the receipt of its record, or there is no permit.
//! 11. [`Issuer::issue`](adapters::credential::Issuer::issue): the lease is in the journal first.
//! 12. [`Upstream::invoke`](adapters::upstream::Upstream::invoke) consumes the permit.
//! 13. The end is recorded, the credential revoked, the agent answered.
//!
//! # Where to add things
//!
//! - An issuer of credentials: a file in `src/adapters/credential/`, a name in
//!   [`ISSUERS`](adapters::credential::ISSUERS), a variant of [`CredentialKind`](app::config::CredentialKind), and a line in `src/app/issuers.rs`.
//! - A channel to approvers: a folder in `src/adapters/channel/` that implements [`Channel`](adapters::channel::Channel), a
//!   name in [`CHANNELS`](adapters::channel::CHANNELS), a variant of [`ChannelKind`](app::config::ChannelKind).
//! - A role for arguments: a file in `src/domain/risk/`, a variant of [`Role`](domain::risk::Role).
//! - A verb: a file in `src/cli/`, a variant of its enum.

pub mod adapters;
pub mod app;
pub mod cli;
pub mod domain;
pub mod downstream;
pub mod gateway;
pub mod metrics;
pub mod sample;
pub mod system;
