use super::*;
use crate::domain::call::{Binding, Caller, Identity, ToolCall};
use crate::domain::json::Limits;
use crate::domain::policy::Assurance;
use crate::domain::risk::{Assessment, Band, Effect};
use proptest::prelude::*;

fn request(quorum: u8) -> Request {
    let call = ToolCall::parse(br#"{"name":"pay","arguments":{"amount":5}}"#, Limits::default()).unwrap();
    let caller = Caller { name: "bot".into(), owner: Some("olga".into()), identity: Identity::Configured };
    let binding =
        Binding { server: "s".into(), upstream: "u".into(), definition: None, policy: Digest::of(b"p"), approvers: Digest::of(b"a"), scope: None };
    Request {
        id: "id".into(),
        key: CallDigest::of(&call, &caller, &binding, None),
        digest: CallDigest::of(&call, &caller, &binding, Some("id")),
        binding,
        tool: "pay".into(),
        title: "Pay".into(),
        arguments: "{}".into(),
        extras: "{}".into(),
        arguments_digest: call.arguments_digest(),
        caller,
        effect: Effect::Pay,
        assessment: Assessment { score: 70, band: Band::High, findings: vec![] },
        demands: vec![],
        policy_source: "f".into(),
        sensitivity: None,
        environment: None,
        credential: None,
        terms: Terms {
            approvers: vec!["anna".into(), "bert".into(), "olga".into()],
            quorum,
            owner_may_approve: false,
            decide_by: Timestamp(1000),
            execute_for_ms: 500,
            escalation: vec![Escalation { approvers: vec!["cleo".into()], from: Timestamp(100) }],
            notify: vec![],
            remind_at: None,
            assurance: Assurance::Session,
            cool_down_ms: 600_000,
            again: None,
        },
        stated_reason: None,
        stated_prompt: None,
        targets: vec![],
        asked_at: Timestamp(0),
    }
}

fn pending(quorum: u8) -> Stage<IsPending> {
    match Approval::open(request(quorum)) {
        Approval::Pending(stage) => stage,
        other => panic!("{other:?}"),
    }
}

fn review(name: &str, verdict: ReviewVerdict) -> Review {
    Review {
        approver: name.into(),
        verdict,
        reason: None,
        shown: request(1).digest,
        channel: "inbox".into(),
        assurance: "inbox session".into(),
        level: Assurance::Session,
        capacity: Capacity::Named,
        again: None,
        at: Timestamp(10),
    }
}

fn approve(name: &str) -> Review {
    review(name, ReviewVerdict::Approve)
}

#[test]
fn requester_and_owner_cannot_approve_their_own_call() {
    let try_as = |name: &str| pending(1).review(approve(name), Timestamp(10)).unwrap_err();
    assert_eq!(try_as("bot"), ReviewError::Requester);
    assert_eq!(try_as("olga"), ReviewError::Owner("olga".into()));
    assert_eq!(try_as("carl"), ReviewError::NotNamed("carl".into()));
    let mut own = request(1);
    own.terms.owner_may_approve = true;
    let Approval::Pending(own) = Approval::open(own) else { panic!() };
    assert_eq!(own.review(approve("olga"), Timestamp(10)).unwrap().state(), "approved");
}

#[test]
fn checks_come_in_order() {
    let mut late_stranger = approve("carl");
    late_stranger.shown =
        CallDigest::of(&ToolCall::parse(br#"{"name":"x"}"#, Limits::default()).unwrap(), &request(1).caller, &request(1).binding, None);
    let try_at = |r: &Review, now| pending(1).review(r.clone(), Timestamp(now)).unwrap_err();
    assert_eq!(try_at(&late_stranger, 1000), ReviewError::Late(Timestamp(1000)));
    assert_eq!(try_at(&late_stranger, 999), ReviewError::NotNamed("carl".into()));
    late_stranger.approver = "anna".into();
    assert_eq!(try_at(&late_stranger, 999), ReviewError::Differs);
}

#[test]
fn a_quorum_needs_distinct_people_and_one_denial_settles() {
    let Approval::Pending(half) = pending(2).review(approve("anna"), Timestamp(10)).unwrap() else { panic!() };
    assert_eq!(half.clone().review(approve("anna"), Timestamp(11)).unwrap_err(), ReviewError::Again("anna".into()));
    assert_eq!(half.clone().review(approve("bert"), Timestamp(12)).unwrap().state(), "approved");
    assert_eq!(half.review(review("bert", ReviewVerdict::Deny), Timestamp(12)).unwrap().state(), "denied");
}

#[test]
fn an_approval_is_redeemed_once_in_time_for_the_same_call_by_people_who_still_may() {
    let Approval::Approved(approved) = pending(1).review(approve("anna"), Timestamp(10)).unwrap() else { panic!() };
    assert_eq!(approved.is.execute_by, Timestamp(510));
    let key = approved.request.key;
    let redeem = |key, who: &'static str, now| approved.clone().redeem(key, move |r: &Review| r.approver == who, "i", Timestamp(now));
    assert_eq!(redeem(key, "anna", 510).unwrap_err(), RedeemError::Late(Timestamp(510)));
    assert_eq!(redeem(approved.request.digest, "anna", 20).unwrap_err(), RedeemError::Differs);
    assert_eq!(redeem(key, "bert", 20).unwrap_err(), RedeemError::ApproverGone("anna".into()));
    let (redeemed, proof) = redeem(key, "anna", 20).unwrap();
    assert_eq!((redeemed.state(), proof.call()), ("redeemed", key));
    let Approval::Redeemed(redeemed) = redeemed else { panic!() };
    assert_eq!(redeemed.clone().put_back(), Approval::Approved(approved));
    let Approval::Dispatched(sent) = redeemed.dispatch(Timestamp(30)) else { panic!() };
    let unknown = sent.finish(Outcome::OutcomeUnknown { why: "x".into() }, Timestamp(40));
    assert!(unknown.findable_until() > Timestamp(510));
}

#[test]
fn states_survive_their_stored_text() {
    let states = [Approval::open(request(1)), pending(1).review(approve("anna"), Timestamp(10)).unwrap(), pending(1).cancel("why", Timestamp(5))];
    for state in states {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<Approval>(&text).unwrap(), state, "{text}");
    }
}

#[test]
fn who_stands_in_counts_once_and_never_for_the_owner() {
    let as_ = |name: &str, capacity: Capacity| Review { capacity, ..approve(name) };
    let refused = |review: Review, at: i64| pending(2).review(review, Timestamp(at)).unwrap_err();
    assert_eq!(refused(as_("dora", Capacity::Delegate("olga".into())), 10), ReviewError::Owner("dora".into()));
    assert_eq!(refused(as_("dora", Capacity::Delegate("cleo".into())), 99), ReviewError::NotNamed("dora".into()));
    assert_eq!(refused(approve("cleo"), 99), ReviewError::NotNamed("cleo".into()));
    assert_eq!(pending(1).review(approve("cleo"), Timestamp(100)).unwrap().state(), "approved");
    let Approval::Pending(half) = pending(2).review(approve("anna"), Timestamp(10)).unwrap() else { panic!() };
    let stand_in = half.clone().review(as_("dora", Capacity::Delegate("anna".into())), Timestamp(11));
    assert_eq!(stand_in.unwrap_err(), ReviewError::Again("dora".into()));
    let other = half.review(as_("dora", Capacity::Delegate("bert".into())), Timestamp(11));
    assert_eq!(other.unwrap().state(), "approved");
    let mut group = request(2);
    group.terms.approvers.push("team".into());
    let Approval::Pending(group) = Approval::open(group) else { panic!() };
    let member = |name: &str| as_(name, Capacity::Member("team".into()));
    let Approval::Pending(half) = group.review(member("eve"), Timestamp(10)).unwrap() else { panic!() };
    assert_eq!(half.clone().review(member("eve"), Timestamp(11)).unwrap_err(), ReviewError::Again("eve".into()));
    assert_eq!(half.review(member("finn"), Timestamp(11)).unwrap().state(), "approved");
}

#[test]
fn a_policy_may_ask_for_more_than_a_session_to_approve_but_never_to_deny() {
    let mut strict = request(1);
    strict.terms.assurance = Assurance::Totp;
    let Approval::Pending(strict) = Approval::open(strict) else { panic!() };
    assert_eq!(strict.clone().review(approve("anna"), Timestamp(10)).unwrap_err(), ReviewError::Assurance);
    let proven = Review { level: Assurance::Totp, ..approve("anna") };
    assert_eq!(strict.clone().review(proven, Timestamp(10)).unwrap().state(), "approved");
    assert_eq!(strict.review(review("anna", ReviewVerdict::Deny), Timestamp(10)).unwrap().state(), "denied");
}

#[test]
fn allowing_again_stays_within_what_the_policy_permits() {
    let key = request(1).key;
    let with = |quorum: u8, terms: Option<AgainTerms>| {
        let mut request = request(quorum);
        request.terms.again = terms;
        match Approval::open(request) {
            Approval::Pending(stage) => stage,
            other => panic!("{other:?}"),
        }
    };
    let terms = AgainTerms { for_ms: 1000, times: 3, max_score: 70, key, vary: vec![] };
    let again = |times, for_ms| Review { again: Some(Again { times, for_ms }), ..approve("anna") };
    for (quorum, terms, review) in [
        (1, None, again(1, 1)),
        (1, Some(terms.clone()), again(4, 1000)),
        (1, Some(terms.clone()), again(3, 1001)),
        (1, Some(terms.clone()), again(0, 1000)),
        (2, Some(terms.clone()), again(1, 1)),
        (1, Some(terms.clone()), Review { verdict: ReviewVerdict::Deny, ..again(1, 1) }),
    ] {
        assert_eq!(with(quorum, terms).review(review, Timestamp(10)).unwrap_err(), ReviewError::TooMuch);
    }
    let Approval::Approved(stage) = with(1, Some(terms)).review(again(3, 1000), Timestamp(10)).unwrap() else { panic!() };
    let allowance = Allowance::given(&stage, "a".into()).unwrap();
    assert_eq!((allowance.left, allowance.expires_at, allowance.key), (3, Timestamp(1010), key));
    assert!(allowance.covers(70, Timestamp(1009)) && !allowance.covers(71, Timestamp(1009)) && !allowance.covers(70, Timestamp(1010)));
    let used = Review { channel: Allowance::CHANNEL.into(), assurance: allowance.assurance(), ..approve("anna") };
    assert_eq!(Allowance::source(&used), Some("id"));
    assert_eq!(Allowance::source(&Review { channel: "slack".into(), ..used }), None);
}

proptest! {
    /// Whatever order verdicts and times come in, an approved state has a quorum of distinct, named, other people,
    /// all in time, and no denial before it.
    #[test]
    fn no_sequence_of_verdicts_breaks_the_rules(
        quorum in 1u8..3, steps in prop::collection::vec((0usize..5, any::<bool>(), 0i64..1400), 0..12),
    ) {
        let people = ["anna", "bert", "olga", "bot", "carl"];
        let mut state = Approval::open(request(quorum));
        for (who, yes, now) in steps {
            state = state.at(Timestamp(now));
            let Approval::Pending(stage) = state.clone() else { break };
            let verdict = if yes { ReviewVerdict::Approve } else { ReviewVerdict::Deny };
            if let Ok(next) = stage.review(review(people[who], verdict), Timestamp(now)) {
                prop_assert!(now < 1000);
                state = next;
            }
        }
        let mut names: Vec<_> = state.reviews().iter().map(|r| r.approver.clone()).collect();
        prop_assert!(names.iter().all(|n| n == "anna" || n == "bert"));
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), state.reviews().len());
        if matches!(state, Approval::Approved(_)) {
            prop_assert!(names.len() >= usize::from(quorum));
            prop_assert!(state.reviews().iter().all(|r| r.verdict == ReviewVerdict::Approve));
        }
    }
}

/// A pending approval with these words in it, for tests of what people are shown.
pub(crate) fn sample(tool: &str, title: &str, reason: &str, evidence: &str, arguments: String, score: u8) -> Approval {
    use crate::domain::risk::{Finding, Group};
    let finding = Finding {
        signal: "text".into(),
        group: Group::Target,
        pointer: Some(format!("/{evidence}")),
        reason: reason.into(),
        evidence: Some(evidence.into()),
        weight: 100,
        floor: None,
        points: 10,
    };
    let band = if score >= 85 { Band::Critical } else { Band::High };
    Approval::open(Request {
        tool: tool.into(),
        title: title.into(),
        arguments,
        assessment: Assessment { score, band, findings: vec![finding] },
        stated_reason: Some(reason.into()),
        sensitivity: Some(reason.into()),
        targets: vec![crate::domain::risk::Target { kind: "recipient".into(), value: evidence.into() }],
        ..request(1)
    })
}
