use proptest::prelude::*;

use super::*;
use crate::anyconnect::login::{Dialect, Groups, Page, Posted, complete, refusal};
use crate::login;
use crate::login::flow::{Asked, Form};

/// What ocserv 1.1.6 shows after a wrong password.
const AGAIN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"auth-request\">\n\
    <version who=\"sg\">0.1(1)</version>\n<auth id=\"main\">\n<message>Login failed.\nPlease enter your password.\
    </message>\n<form method=\"post\" action=\"/auth\">\n<input type=\"password\" name=\"password\" \
    label=\"Password:\" />\n</form></auth>\n</config-auth>";

fn form(document: &str) -> Result<GatewayForm, FormFault> {
    match Told::of_document(document.as_bytes())? {
        Told::Form(form) => Ok(form),
        Told::Complete { .. } | Told::CertificateWanted | Told::Refused(_) => panic!("no form"),
    }
}

fn in_form(fields: &str) -> Result<GatewayForm, FormFault> {
    form(&format!("<config-auth type=\"auth-request\"><auth id=\"main\"><form>{fields}</form></auth></config-auth>"))
}

fn answers(pairs: &[(&str, &str)]) -> BTreeMap<String, Zeroizing<String>> {
    pairs.iter().map(|(name, answer)| ((*name).to_owned(), Zeroizing::new((*answer).to_owned()))).collect()
}

/// Name and label of each question.
fn asked(form: &GatewayForm) -> Vec<(String, String, bool)> {
    form.questions()
        .map(|Question { name, label, is_secret, .. }| (name.to_owned(), label.to_owned(), is_secret))
        .collect()
}

fn triple(name: &str, label: &str, is_secret: bool) -> (String, String, bool) {
    (name.to_owned(), label.to_owned(), is_secret)
}

#[test]
fn form_of_a_stock_gateway_is_understood_and_answered() {
    let form = form(AGAIN).unwrap();
    assert_eq!((form.action.as_str(), form.error.as_deref()), ("/auth", None));
    assert_eq!(form.text, "Login failed.\nPlease enter your password.");
    assert_eq!(asked(&form), [triple("password", "Password", true)]);
    assert_eq!(
        form.reply("v9", &answers(&[("password", "a<b&c"), ("other", "x")])).as_str(),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<config-auth client=\"vpn\" type=\"auth-reply\" \
         aggregate-auth-version=\"2\"><version who=\"vpn\">v9</version><device-id>linux-64</device-id><auth>\
         <password>a&lt;b&amp;c</password></auth></config-auth>\n"
    );
}

#[test]
fn fields_bear_the_names_in_the_answer_that_gateways_expect() {
    let fields = "<input type=\"hidden\" name=\"tgroup\" value=\"&quot;h&quot;\"/><input name=\"username\"/>\
        <input type=\"password\" name=\"answer\" label=\"Response: \"/>\
        <input type=\"password\" name=\"verify_password\"/><input type=\"submit\" name=\"Login\" value=\"Login\"/>\
        <select name=\"group_list\" label=\"GROUP:\"><option value=\"g1\">One</option><option>Two</option></select>";
    let form = in_form(fields).unwrap();
    assert_eq!(asked(&form), [triple("username", "username", false), triple("answer", "Response", true)]);
    let groups = form.groups().unwrap();
    let choice = |value: &str, label: &str| Choice { value: value.to_owned(), label: label.to_owned() };
    assert_eq!((groups.name, groups.label), ("group_list", "GROUP"));
    assert_eq!(groups.choices, [choice("g1", "One"), choice("Two", "Two")]);
    let given = answers(&[("username", "u"), ("answer", "p"), ("group_list", "g1"), ("verify_password", "p")]);
    let reply = form.reply("v9", &given);
    let body = "<auth><tgroup>&quot;h&quot;</tgroup><username>u</username><password>p</password></auth>\
        <group-select>g1</group-select></config-auth>\n";
    assert!(reply.ends_with(body), "{}", *reply);
}

#[test]
fn group_is_named_by_its_label_or_else_by_its_value() {
    let options = "<option value=\"b\">a</option><option value=\"a\">b</option><option value=\"c\">C</option>";
    let form = in_form(&format!("<select name=\"group_list\">{options}</select>")).unwrap();
    let value = |named: &str| form.groups().unwrap().choice(named).map(|choice| choice.value.clone());
    assert_eq!(["a", "b", "C", "c"].map(value), ["b", "a", "c", "c"].map(|value| Some(value.to_owned())));
    assert_eq!(value("d"), None);
    for other in ["<input name=\"group_list\"/>", "<select name=\"group_list\"/>", "<select name=\"a\"/>"] {
        assert!(in_form(other).unwrap().groups().is_none(), "there is nothing to choose: {other}");
    }
}

#[test]
fn login_begins_in_the_group_that_was_chosen() {
    let beginning =
        Beginning { url: "https://gw.test/a&b", group: Some("<staff>"), has_no_certificate: false, has_browser: false };
    let begun = begin("v9", beginning);
    let body = "<group-access>https://gw.test/a&amp;b</group-access><group-select>&lt;staff&gt;</group-select>";
    assert!(begun.contains(body) && begun.contains("type=\"init\""), "{}", *begun);
    assert!(
        Posted::of_xml(begun.as_bytes())
            == Ok(Posted::Begin { group: Some("<staff>".to_owned()), opens_browser: false })
    );
}

#[test]
fn what_is_opaque_comes_back_as_it_was() {
    let with =
        |opaque: &str| format!("<config-auth>{opaque}<auth><form><input name=\"a\"/></form></auth></config-auth>");
    let opaque = "<opaque is-for=\"sg\"><tunnel-group>a &amp; b</tunnel-group><config-hash>1</config-hash></opaque>";
    let reply = form(&with(opaque)).unwrap().reply("v9", &answers(&[]));
    assert!(reply.contains(&format!("{opaque}<auth></auth>")), "{}", *reply);
    assert!(!form(&with("")).unwrap().reply("v9", &answers(&[])).contains("opaque"));
}

#[test]
fn end_of_a_login_is_known_with_a_token_and_without() {
    let token = |document: &str| match Told::of_document(document.as_bytes()) {
        Ok(Told::Complete { token, .. }) => token.map(|token| token.to_string()),
        Ok(_) | Err(_) => panic!("it is complete: {document}"),
    };
    assert_eq!(token(&complete("t0k-en_", Dialect::Aggregate)).as_deref(), Some("t0k-en_"));
    assert_eq!(token("<config-auth type=\"complete\"><auth id=\"success\"/></config-auth>"), None);
    assert_eq!(token("<auth id=\"success\"><title>SSL VPN Service</title></auth>"), None);
}

#[test]
fn banner_of_a_login_that_is_complete_is_told() {
    let complete = "<config-auth type=\"complete\"><auth id=\"success\"><banner>One.\nTwo.</banner>\
        <message>Three.</message></auth></config-auth>";
    let Ok(Told::Complete { text, token: None }) = Told::of_document(complete.as_bytes()) else {
        panic!("it is complete")
    };
    assert_eq!(text, "One.\nTwo.\nThree.");
}

#[test]
fn refusal_without_a_form_says_why() {
    let refused = |document: &str| match Told::of_document(document.as_bytes()) {
        Ok(Told::Refused(reason)) => reason,
        Ok(_) | Err(_) => panic!("it is refused: {document}"),
    };
    assert_eq!(refused(&refusal("no <way>", Dialect::Aggregate)), "no <way>");
    assert_eq!(refused("<config-auth type=\"auth-request\"><error id=\"9\">out</error></config-auth>"), "out");
}

#[test]
fn hostile_documents_lead_nowhere() {
    let field = "<input name=\"a\"/>";
    assert!(in_form(field).is_ok(), "the positive control");
    assert_eq!(in_form(&field.repeat(2)).err(), Some(FormFault::Twice("a field")));
    let form_twice = format!("<auth><form>{field}</form><form>{field}</form></auth>");
    assert_eq!(form(&form_twice).err(), Some(FormFault::Twice("form")));
    assert_eq!(form("<config-auth><auth/><auth/></config-auth>").err(), Some(FormFault::Twice("auth")));
    for name in ["", "1a", "a b", "a><b", "a/b", "n".repeat(65).as_str()] {
        let named = format!("<input name=\"{}\"/>", escape(name));
        assert_eq!(in_form(&named).err(), Some(FormFault::Nameless), "{name:?}");
    }
    let many = |number: usize| in_form(&(0..number).map(|n| format!("<input name=\"a{n}\"/>")).collect::<String>());
    assert!(many(MAX_FIELDS).is_ok());
    assert_eq!(many(MAX_FIELDS + 1).err(), Some(FormFault::TooMany));
    let lol = "<!DOCTYPE a [<!ENTITY l \"ha\">]><auth><message>&l;</message><form><input name=\"a\"/></form></auth>";
    assert_eq!(form(lol).err(), Some(FormFault::Xml(XmlFault::DocumentType)));
    for unknown in ["<html/>", "<config-auth type=\"auth-request\"/>", "<config-auth><auth/></config-auth>"] {
        assert_eq!(form(unknown).err(), Some(FormFault::Unknown), "{unknown}");
    }
}

/// A form that waits for a browser, with these elements before it.
fn in_browser(before: &str) -> Result<GatewayForm, FormFault> {
    form(&format!("<auth id=\"main\">{before}<form><input type=\"sso\" name=\"sso-token\"/></form></auth>"))
}

#[test]
fn login_in_a_browser_of_this_host_is_answered_with_what_it_brings() {
    const PAGE: &str = "<sso-v2-login>https://gw.test/sso?a=1&amp;b=2</sso-v2-login>";
    let external = format!("{PAGE}<sso-v2-browser-mode>external</sso-v2-browser-mode>");
    let form = in_browser(&external).unwrap();
    assert_eq!(form.browser(), Some(("sso-token", "https://gw.test/sso?a=1&b=2")));
    assert_eq!(asked(&form), [], "nobody types it");
    assert!(
        form.reply("v9", &answers(&[("sso-token", "t0ken")])).contains("<auth><sso-token>t0ken</sso-token></auth>")
    );
    for other in
        ["", PAGE, &external.replace("external", "embedded"), "<sso-v2-browser-mode>external</sso-v2-browser-mode>"]
    {
        assert_eq!(in_browser(other).err(), Some(FormFault::Browser), "{other}");
    }
    assert_eq!(in_browser(&external.repeat(2)).err(), Some(FormFault::Twice("sso-v2-browser-mode")));
    assert_eq!(in_form("<input name=\"a\"/>").unwrap().browser(), None);
    let beginning = Beginning { url: "https://gw.test/", group: None, has_no_certificate: false, has_browser: true };
    let announced = |has_browser| begin("v9", Beginning { has_browser, ..beginning }).contains("external-browser<");
    assert!(announced(true) && !announced(false));
}

#[test]
fn gateway_that_wants_a_certificate_hears_that_there_is_none() {
    let wanted = "<config-auth type=\"auth-request\"><client-cert-request/></config-auth>";
    assert!(matches!(Told::of_document(wanted.as_bytes()), Ok(Told::CertificateWanted)));
    let beginning = Beginning { url: "https://gw.test/", group: None, has_no_certificate: true, has_browser: false };
    assert!(begin("v9", beginning).contains("</group-access><client-cert-fail/></config-auth>"));
    assert!(!begin("v9", Beginning { has_no_certificate: false, ..beginning }).contains("client-cert-fail"));
}

/// The gateway of this crate on the other side.
#[test]
fn our_gateway_and_our_client_understand_each_other() {
    for has_browser in [false, true] {
        let beginning = Beginning { url: "https://gw.test/?a&b", group: None, has_no_certificate: true, has_browser };
        let posted = Posted::of_xml(begin("v9", beginning).as_bytes());
        assert!(posted == Ok(Posted::Begin { group: None, opens_browser: has_browser }));
    }
    let asked = |name, kind, echo| Asked { name, label: "L", kind, echo };
    let choice = login::Kind::Choice(vec!["one & 1".to_owned(), "two".to_owned()]);
    let shown = Form {
        text: "Which?".to_owned(),
        fields: vec![
            asked("user", login::Kind::User, true),
            asked("password", login::Kind::Password, false),
            asked("code", login::Kind::Code, false),
            asked("choice", choice, true),
        ],
    };
    let offered = ["staff".to_owned(), "guests".to_owned()];
    let groups = Groups { offered: &offered, chosen: None };
    let page = Page { form: &shown, handle: "h\"1", error: Some("no"), groups };
    for dialect in [Dialect::Aggregate, Dialect::Plain] {
        let form = form(&page.document(dialect)).unwrap();
        assert_eq!((form.action.as_str(), form.text.as_str(), form.error.as_deref()), ("/", "Which?", Some("no")));
        let given = [
            ("username", "alice"),
            ("password", "p<&>"),
            ("secondary_password", "123456"),
            ("choice", "one & 1"),
            ("group_list", "staff"),
        ];
        let Ok(Posted::Answer { handle, answers, group, .. }) =
            Posted::of_xml(form.reply("v9", &answers(&given)).as_bytes())
        else {
            panic!("it is an answer")
        };
        assert_eq!((handle.as_deref(), group.as_deref()), (Some("h\"1"), Some("staff")));
        let heard: Vec<_> = answers.iter().map(|(name, answer)| (name.as_str(), answer.as_str())).collect();
        assert_eq!(heard, [("choice", "one & 1"), ("code", "123456"), ("password", "p<&>"), ("user", "alice")]);
    }
}

proptest! {
    #[test]
    fn every_reply_is_a_document_with_the_answers_in_it(answer in "\\PC{0,40}", hidden in "\\PC{0,40}") {
        let fields = format!("<input type=\"hidden\" name=\"h\" value=\"{}\"/><input name=\"a\"/>", escape(hidden.as_str()));
        let reply = in_form(&fields).unwrap().reply("v9", &answers(&[("a", &answer)]));
        let elements = xml::read(reply.as_bytes()).map_err(|_| ()).unwrap();
        let said = |path: &str| elements.iter().find(|element| element.path == path).unwrap().text.to_string();
        prop_assert_eq!(said("config-auth/auth/a"), answer);
        prop_assert_eq!(said("config-auth/auth/h"), hidden);
    }

    #[test]
    fn nothing_disturbs_the_reader(document in "(<config-auth>|<auth>|<form>|<input name=\"a\"/>|</form>|</auth>|&|x){0,12}") {
        drop(Told::of_document(document.as_bytes()));
    }
}
