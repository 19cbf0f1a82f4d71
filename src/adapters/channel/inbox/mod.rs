//! The inbox: a page served by the gateway, on which signed-in approvers see what waits and decide.
//!
//! It reads the store, so asking is only a line for whoever watches the terminal. [`pages`] has the routes, [`view`]
//! what is drawn.

pub mod pages;
mod view;

use async_trait::async_trait;

use super::Channel;
use crate::domain::approval::Approval;
use crate::domain::text::visible;

/// The built-in page.
#[derive(Debug)]
pub struct Inbox {
    /// Where approvers reach it, such as `http://127.0.0.1:8700`.
    pub address: String,
}

impl Inbox {
    fn link(&self, approval: &Approval) -> String {
        format!("{}/inbox/{}", self.address, approval.request().id)
    }
}

#[async_trait]
impl Channel for Inbox {
    fn name(&self) -> &'static str {
        "inbox"
    }

    fn place(&self, approval: &Approval) -> Option<String> {
        Some(self.link(approval))
    }

    async fn ask(&self, approval: &Approval) {
        let request = approval.request();
        tracing::info!(
            approval = %request.id, score = request.assessment.score, "waiting for {}: {} ({})",
            request.terms.approvers.join(" or "), visible(&request.title), self.link(approval)
        );
    }

    async fn tell(&self, approval: &Approval) {
        tracing::info!(approval = %approval.request().id, "{}: {}", approval.state(), visible(&approval.request().title));
    }
}
