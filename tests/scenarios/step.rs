//! One line of a scenario: its words, its fields, and what is expected.

/// A step did not do what its line says.
pub(crate) struct Failed(pub(crate) String);

pub(crate) fn fails<T>(why: impl Into<String>) -> Result<T, Failed> {
    Err(Failed(why.into()))
}

/// A name and a value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

pub(crate) struct Step {
    pub(crate) verb: String,
    pub(crate) words: Vec<String>,
    /// Those that nobody has taken; what is left at the end is a fault.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) status: String,
    /// What its sentence contains.
    pub(crate) part: String,
    pub(crate) repeat: u64,
    /// Which of the repetitions this is.
    pub(crate) index: u64,
}

impl Step {
    pub(crate) fn parse(line: &str) -> Result<Self, Failed> {
        let (does, expected) = line.split_once("->").unwrap_or((line, "OK"));
        let mut words: Vec<String> = Vec::new();
        let mut fields = Vec::new();
        for word in does.split_ascii_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => fields.push((name.to_owned(), value.to_owned())),
                None => words.push(word.to_owned()),
            }
        }
        if words.is_empty() {
            return fails("a line without a step");
        }
        let mut expected = expected.split_ascii_whitespace();
        let mut step = Self {
            verb: words.remove(0),
            words,
            fields,
            status: expected.next().unwrap_or("OK").to_owned(),
            part: String::from_utf8_lossy(&decode(expected.next().unwrap_or("-"))?).into_owned(),
            repeat: 1,
            index: 0,
        };
        step.repeat = step.number("repeat", 1)?;
        Ok(step)
    }

    pub(crate) fn name(&self, index: usize) -> Result<&str, Failed> {
        match self.words.get(index) {
            Some(word) => Ok(word),
            None => fails(format!("{} has too few words", self.verb)),
        }
    }

    pub(crate) fn bytes(&self, index: usize) -> Result<Vec<u8>, Failed> {
        decode(self.name(index)?)
    }

    pub(crate) fn token(&self, index: usize) -> Result<u64, Failed> {
        parsed(self.name(index)?)
    }

    pub(crate) fn take(&mut self, name: &str) -> Result<Option<Vec<u8>>, Failed> {
        let found = self.fields.iter().position(|(field, _)| field == name);
        found
            .map(|at| decode(&self.fields.remove(at).1))
            .transpose()
    }

    pub(crate) fn number(&mut self, name: &str, default: u64) -> Result<u64, Failed> {
        match self.take(name)? {
            Some(digits) => parsed(&String::from_utf8_lossy(&digits)),
            None => Ok(default),
        }
    }

    /// Fields whose names begin so, without that beginning, in their order.
    pub(crate) fn prefixed(&mut self, prefix: &str) -> Result<Vec<Pair>, Failed> {
        let is_one = |(name, _): &(String, String)| name.starts_with(prefix);
        let (taken, left) = std::mem::take(&mut self.fields)
            .into_iter()
            .partition(is_one);
        self.fields = left;
        let taken: Vec<(String, String)> = taken;
        taken
            .iter()
            .map(|(name, value)| Ok((decode(&name[prefix.len()..])?, decode(value)?)))
            .collect()
    }
}

fn parsed(digits: &str) -> Result<u64, Failed> {
    digits
        .parse()
        .map_err(|_| Failed(format!("{digits} is no number")))
}

pub(crate) fn number(value: u64) -> Result<u32, Failed> {
    u32::try_from(value).map_err(|_| Failed(format!("{value} is too large a number")))
}

/// `-` is nothing, `*N` is N times x, `%XX` a byte.
pub(crate) fn decode(word: &str) -> Result<Vec<u8>, Failed> {
    if word == "-" {
        return Ok(Vec::new());
    }
    if let Some(count) = word.strip_prefix('*')
        && let Ok(count) = count.parse()
    {
        return Ok(vec![b'x'; count]);
    }
    let (mut decoded, mut rest) = (Vec::new(), word.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            decoded.push(*first);
            continue;
        }
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => decoded.push(byte),
            None => return fails(format!("{word} has a % without two digits")),
        }
        rest = &rest[2..];
    }
    Ok(decoded)
}

/// The beginning of something, for people.
pub(crate) fn show(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(80)];
    format!(
        "{:?} ({} bytes)",
        String::from_utf8_lossy(shown),
        bytes.len()
    )
}
