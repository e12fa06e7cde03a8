//! The default script.

use super::{Kind, Script, Stage};

impl Script {
    /// The default: a repairs line, welcome → issue → address → dispatch → done.
    pub fn repairs_line() -> Self {
        let stage =
            |name: &str, say: &str, next: Option<&str>| Stage { name: name.to_owned(), say: say.to_owned(), next: next.map(str::to_owned), ..Stage::default() };
        let to = |word: &str, stage: &str| (word.to_owned(), stage.to_owned());
        Self {
            stages: vec![
                Stage { collect: Some("issue".to_owned()), ..stage("welcome", "Hello, this is the repairs line. What needs fixing?", Some("issue")) },
                Stage { collect: Some("place".to_owned()), ..stage("issue", "I'm sorry to hear that. Which room is it in?", Some("address")) },
                Stage {
                    collect: Some("address".to_owned()),
                    kind: Kind::Address,
                    reprompt: Some("Could you give me the house number and the street?".to_owned()),
                    ..stage("address", "Thank you. What is your address, please?", Some("dispatch"))
                },
                Stage {
                    kind: Kind::YesNo,
                    accept: [to("yes", "done"), to("no", "address")].into(),
                    reprompt: Some("Sorry, was that a yes or a no?".to_owned()),
                    ..stage("dispatch", "I have {address}. Shall I send an engineer there?", None)
                },
                Stage { end: true, ..stage("done", "All right, an engineer will be with you tomorrow. Goodbye.", None) },
            ],
        }
    }
}
