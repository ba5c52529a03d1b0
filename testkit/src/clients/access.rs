//! Users of a broker and what they may do, by the admin protocol itself: the same requests that `kafka-configs.sh` and
//! `kafka-acls.sh` send, in milliseconds instead of a start of Java each.

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha512};

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Largest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The fewest that Kafka takes: it is no password of value that is guarded here.
const ITERATIONS: u32 = 4096;
/// Bytes of a block of SHA-512, by which HMAC pads.
const BLOCK_BYTES: usize = 128;

/// What something is allowed to be done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A topic.
    Topic = 2,
    /// A consumer group.
    Group = 3,
    /// A transactional id.
    TransactionalId = 5,
}

/// What is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `Read`
    Read = 3,
    /// `Write`
    Write = 4,
    /// `Create`
    Create = 5,
    /// `Describe`
    Describe = 8,
    /// `DescribeConfigs`
    DescribeConfigs = 10,
}

/// One right: an operation on a resource of exactly this name, from anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// What kind of thing.
    pub resource: Resource,
    /// Its name.
    pub name: String,
    /// What may be done.
    pub operation: Operation,
}

impl Right {
    /// A right.
    pub fn new(operation: Operation, resource: Resource, name: &str) -> Self {
        Self { resource, name: name.to_owned(), operation }
    }
}

/// Kafka's number of a request, and its version.
struct Api(i16, i16);

const CREATE_ACLS: Api = Api(30, 1);
const DELETE_ACLS: Api = Api(31, 1);
/// Only there in the "flexible" encoding: compact lengths and tagged fields.
const ALTER_SCRAM: Api = Api(51, 0);

/// A connection by which whoever connects may do anything.
pub struct Access {
    stream: TcpStream,
    asked: i32,
}

impl Access {
    /// Connects to a listener without TLS.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn connect(broker: &str) -> Result<Self> {
        let stream = TcpStream::connect(broker).with_context(|| format!("connect to {broker}"))?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, asked: 0 })
    }

    /// Gives a user this password for SCRAM-SHA-512; the one before is no longer taken.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn set_password(&mut self, user: &str, password: &str) -> Result<()> {
        let mut salt = [0_u8; 16];
        File::open("/dev/urandom")?.read_exact(&mut salt)?;
        let salted = salted(password.as_bytes(), &salt);
        let mut body = Body::default();
        body.compact(0);
        body.compact(1).compact_bytes(user.as_bytes()).byte(2).int(ITERATIONS.cast_signed());
        body.compact_bytes(&salt).compact_bytes(&salted);
        body.no_tags().no_tags();
        let mut answer = self.ask(&ALTER_SCRAM, true, body)?;
        answer.take(4)?;
        ensure!(answer.compact()? == 1, "one user, one result");
        answer.compact_bytes()?;
        let code = answer.short()?;
        let said = String::from_utf8_lossy(answer.compact_bytes()?).into_owned();
        ensure!(code == 0, "set the password of {user}: error {code} {said}");
        Ok(())
    }

    /// Lets a user do this.
    ///
    /// # Errors
    /// When the broker refuses.
    pub fn allow(&mut self, user: &str, rights: &[Right]) -> Result<()> {
        let mut body = Body::default();
        body.int(i32::try_from(rights.len())?);
        for Right { resource, name, operation } in rights {
            body.byte(*resource as u8).text(name).byte(LITERAL).text(&format!("User:{user}")).text("*");
            body.byte(*operation as u8).byte(ALLOW);
        }
        let mut answer = self.ask(&CREATE_ACLS, false, body)?;
        answer.take(4)?;
        for _ in 0..answer.int()? {
            let (code, said) = (answer.short()?, answer.text()?);
            ensure!(code == 0, "allow {user} {rights:?}: error {code} {said}");
        }
        Ok(())
    }

    /// Takes a right away, or all that a user has.
    ///
    /// # Errors
    /// When the broker refuses, or there was none.
    pub fn take_away(&mut self, user: &str, right: Option<&Right>) -> Result<()> {
        let mut body = Body::default();
        let of = right.map_or(ANY, |right| right.resource as u8);
        body.int(1).byte(of).optional_text(right.map(|right| right.name.as_str()));
        body.byte(if right.is_some() { LITERAL } else { ANY });
        body.optional_text(Some(&format!("User:{user}"))).optional_text(None);
        body.byte(right.map_or(ANY, |right| right.operation as u8)).byte(ALLOW);
        let mut answer = self.ask(&DELETE_ACLS, false, body)?;
        answer.take(4)?;
        ensure!(answer.int()? == 1, "one filter, one result");
        let (code, said) = (answer.short()?, answer.text()?);
        ensure!(code == 0, "take {right:?} from {user}: error {code} {said}");
        ensure!(answer.int()? > 0, "{user} did not have {right:?}");
        Ok(())
    }

    fn ask(&mut self, Api(key, version): &Api, flexible: bool, body: Body) -> Result<Answer> {
        self.asked += 1;
        let mut request = Body::default();
        request.short(*key).short(*version).int(self.asked).text("testkit");
        if flexible {
            request.no_tags();
        }
        request.0.extend(body.0);
        let length = u32::try_from(request.0.len())?;
        self.stream.write_all(&length.to_be_bytes())?;
        self.stream.write_all(&request.0)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("read the length of an answer")?;
        let length = u32::from_be_bytes(length) as usize;
        ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).context("read an answer")?;
        let mut answer = Answer { bytes, at: 0 };
        ensure!(answer.int()? == self.asked, "the answer to another request");
        if flexible {
            answer.take(1)?;
        }
        Ok(answer)
    }
}

/// Of a resource, a pattern, an operation.
const ANY: u8 = 1;
/// A pattern that is the whole name.
const LITERAL: u8 = 3;
/// A permission.
const ALLOW: u8 = 3;

/// A request as it grows.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn short(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn int(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.optional_text(Some(text))
    }

    fn optional_text(&mut self, text: Option<&str>) -> &mut Self {
        let length = text.map_or(-1, |text| i16::try_from(text.len()).expect("names are short"));
        self.short(length).0.extend(text.unwrap_or_default().bytes());
        self
    }

    /// A count or length in the flexible encoding: one more than it is, since 0 says that there is none.
    fn compact(&mut self, length: usize) -> &mut Self {
        let mut rest = length + 1;
        while rest >= 0x80 {
            self.0.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8)
    }

    fn compact_bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.compact(bytes.len()).0.extend(bytes);
        self
    }

    fn no_tags(&mut self) -> &mut Self {
        self.byte(0)
    }
}

/// An answer, read from its beginning on.
struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take(&mut self, count: usize) -> Result<&[u8]> {
        let (from, to) = (self.at, self.at + count);
        self.at = to;
        self.bytes.get(from..to).context("the answer is cut off")
    }

    fn short(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn int(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// Empty where there is none.
    fn text(&mut self) -> Result<String> {
        let length = usize::try_from(self.short()?).unwrap_or(0);
        Ok(String::from_utf8_lossy(self.take(length)?).into_owned())
    }

    /// 0 where there is none.
    fn compact(&mut self) -> Result<usize> {
        let (mut value, mut shift) = (0_usize, 0);
        loop {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(value.saturating_sub(1));
            }
            ensure!(shift < 32, "a length of too many bytes");
        }
    }

    fn compact_bytes(&mut self) -> Result<&[u8]> {
        let length = self.compact()?;
        self.take(length)
    }
}

/// The password as SCRAM-SHA-512 keeps it: PBKDF2, of which one block is all that is needed.
fn salted(password: &[u8], salt: &[u8]) -> [u8; 64] {
    let mut round = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut sum = round;
    for _ in 1..ITERATIONS {
        round = hmac(password, &round);
        sum.iter_mut().zip(round).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

fn hmac(key: &[u8], message: &[u8]) -> [u8; 64] {
    assert!(key.len() <= BLOCK_BYTES, "longer keys are hashed first; these are passwords of tests");
    let pad = |with: u8| {
        let mut block = [with; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(block, byte)| *block ^= byte);
        block
    };
    let inner = Sha512::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha512::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_salted_as_others_do() {
        // From Python: hashlib.pbkdf2_hmac("sha512", b"pencil", b"salt", 4096).
        let shown: String = salted(b"pencil", b"salt").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            shown,
            "2cfe3a1c151662b1ea49d13f595674a1c666add70df15d3d02254e9905993878261da7407fd11c2fee4b0a30df5154b1a752f86a13380ddd4bdd9a7c958ec769"
        );
    }

    #[test]
    fn lengths_are_told_one_larger_in_seven_bits_each() {
        for (length, bytes) in [(0, vec![1]), (126, vec![0x7f]), (127, vec![0x80, 1]), (300, vec![0xad, 2])] {
            let mut body = Body::default();
            body.compact(length);
            assert_eq!(body.0, bytes);
            assert_eq!(Answer { bytes, at: 0 }.compact().unwrap(), length);
        }
    }
}
