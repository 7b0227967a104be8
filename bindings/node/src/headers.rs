//! Headers between JavaScript and their encoded form.

use fastmq::Headers;
use napi::bindgen_prelude::{Buffer, Uint8Array};
use napi_derive::napi;

use crate::error::{Thrown, thrown};

/// Encodes headers, whose names and values take turns.
#[napi]
pub fn encode_headers(pairs: Vec<Uint8Array>) -> Result<Buffer, Thrown> {
    let mut headers = Headers::new();
    for pair in pairs.chunks_exact(2) {
        headers.add(&pair[0], &pair[1]).map_err(thrown)?;
    }
    Ok(headers.as_bytes().to_vec().into())
}

/// Where the names and values are: four numbers for each header (place and size of the name, of
/// the value).
#[napi]
pub fn decode_headers(headers: &[u8]) -> Result<Vec<u32>, Thrown> {
    let mut places = Vec::new();
    let mut cursor = 0;
    let at = |part: &[u8]| part.as_ptr() as usize - headers.as_ptr() as usize;
    while let Some((name, value, after)) = fastmq::headers::next(headers, cursor).map_err(thrown)? {
        for number in [at(name), name.len(), at(value), value.len()] {
            places.push(number as u32);
        }
        cursor = after;
    }
    Ok(places)
}

/// The place and size of the first value with this name, compared without ASCII case; nothing if
/// no header has it.
#[napi]
pub fn find_header(headers: &[u8], name: String) -> Result<Vec<u32>, Thrown> {
    match fastmq::headers::get(headers, name.as_bytes()) {
        Ok(value) => {
            let at = value.as_ptr() as usize - headers.as_ptr() as usize;
            Ok(vec![at as u32, value.len() as u32])
        }
        Err(error) if error.status() == fastmq::Status::NotFound => Ok(Vec::new()),
        Err(error) => Err(thrown(error)),
    }
}
