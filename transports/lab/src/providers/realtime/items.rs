//! The conversation of a fake realtime model: what it would answer to.

use serde_json::{Value, json};

/// Everything in it, in order.
#[derive(Default)]
pub(super) struct Items(Vec<Item>);

struct Item {
    id: String,
    role: String,
    text: String,
    sound_ms: u64,
}

impl Items {
    /// Puts an item behind another one, `root` for the beginning, or at the end; false where the other is not there.
    pub fn insert(&mut self, id: &str, role: &str, text: &str, behind: Option<&str>) -> bool {
        let place = match behind {
            None => Some(self.0.len()),
            Some("root") => Some(0),
            Some(other) => self.place(other).map(|place| place + 1),
        };
        let Some(place) = place else { return false };
        self.0.insert(place, Item { id: id.to_owned(), role: role.to_owned(), text: text.to_owned(), sound_ms: 0 });
        true
    }

    /// An item has more text and sound.
    pub fn grow(&mut self, id: &str, text: &str, sound_ms: u64) {
        if let Some(place) = self.place(id) {
            self.0[place].text.push_str(text);
            self.0[place].sound_ms += sound_ms;
        }
    }

    /// Takes an item out; false where there is none.
    pub fn delete(&mut self, id: &str) -> bool {
        let place = self.place(id);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// Leaves the words that were heard by then; false where there is no such sound.
    pub fn truncate(&mut self, id: &str, heard_ms: u64) -> bool {
        let Some(item) = self.place(id).map(|place| &mut self.0[place]).filter(|item| heard_ms <= item.sound_ms) else { return false };
        let words: Vec<_> = item.text.split_whitespace().collect();
        let heard = words.len() as u64 * heard_ms / item.sound_ms.max(1);
        (item.text, item.sound_ms) = (words[..heard as usize].join(" "), heard_ms);
        true
    }

    /// As a chat request has it, for a script that answers both.
    pub fn messages(&self) -> Vec<Value> {
        self.0.iter().map(|item| json!({"role": item.role, "content": item.text})).collect()
    }

    fn place(&self, id: &str) -> Option<usize> {
        self.0.iter().position(|item| item.id == id)
    }
}
