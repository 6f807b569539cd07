// SPDX-License-Identifier: BSD-3-Clause
//! A cache that has its own memory.

use crate::error::{Error, Result, Status};
use crate::kv::{kv_append, Kv, KvAppendOptions, KvMut};
use crate::sdpa::{sdpa_kv, SdpaOptions};
use crate::view::{Element, View, ViewMut};

/// Keys and values of B sequences, stored as `T`, one of the floats, with room for C rows of each.
///
/// What it lends is gone before it changes:
///
/// ```compile_fail,E0502
/// let mut cache = attention::KvCache::<f32>::new([1, 1, 4, 2], [1, 1, 4, 2]).unwrap();
/// let lent = cache.as_kv().unwrap();
/// cache.truncate(0, 0).unwrap();
/// drop(lent);
/// ```
#[derive(Debug, Clone)]
pub struct KvCache<T> {
    key: Vec<T>,
    value: Vec<T>,
    key_shape: [usize; 4],
    value_shape: [usize; 4],
    lengths: Vec<i64>,
}

impl<T: Element + Default> KvCache<T> {
    /// (B, Hk, C, E) and (B, Hv, C, Ev); all of it is allocated now.
    pub fn new(key_shape: [usize; 4], value_shape: [usize; 4]) -> Result<Self> {
        Ok(KvCache {
            key: zeros(key_shape.iter())?,
            value: zeros(value_shape.iter())?,
            key_shape,
            value_shape,
            lengths: zeros([key_shape[0]].iter())?,
        })
    }

    /// L new rows for each sequence, (B, Hk, L, E) and (B, Hv, L, Ev), converted to `T`. The cache
    /// stays as it was if this fails.
    pub fn append(&mut self, key: &View<'_>, value: &View<'_>) -> Result<()> {
        let rows = key.shape().iter().rev().nth(1).copied().unwrap_or(0);
        let grown = self.lengths.iter().map(|length| length.wrapping_add(rows));
        let grown = grown.collect();
        self.store(grown, key, value, KvAppendOptions::new())
    }

    /// The new rows of sequence b are rows `starts[b]` to `starts[b + 1]` - 1 of key (Hk, total, E)
    /// and value (Hv, total, Ev).
    pub fn append_ragged(
        &mut self,
        key: &View<'_>,
        value: &View<'_>,
        starts: &[i64],
    ) -> Result<()> {
        let mut grown = self.lengths.clone();
        // Of any numbers: the library refuses what is no length.
        for (length, ends) in grown.iter_mut().zip(starts.windows(2)) {
            *length = length.wrapping_add(ends[1].wrapping_sub(ends[0]));
        }
        let starts = View::new(starts, &[starts.len()])?;
        self.store(grown, key, value, KvAppendOptions::new().starts(starts))
    }

    /// Query (B, Hq, L, E), or with [`query_starts`](SdpaOptions::query_starts) (Hq, total, E),
    /// attends to the rows in use.
    pub fn attend(
        &self,
        query: &View<'_>,
        output: &mut ViewMut<'_>,
        options: SdpaOptions<'_>,
    ) -> Result<()> {
        sdpa_kv(query, &self.as_kv()?, output, options)
    }

    /// What is there, for [`sdpa_kv`] and for `describe_outputs_kv` and `explain_kv` of the
    /// options.
    pub fn as_kv(&self) -> Result<Kv<'_>> {
        let key = View::new(&self.key, &self.key_shape)?;
        let value = View::new(&self.value, &self.value_shape)?;
        Ok(Kv::new(key, value).lengths(View::new(&self.lengths, &[self.lengths.len()])?))
    }

    /// Rows in use of each sequence.
    pub fn lengths(&self) -> &[i64] {
        &self.lengths
    }

    /// Forgets the rows of a sequence from `length` on.
    pub fn truncate(&mut self, sequence: usize, length: usize) -> Result<()> {
        let current = self.lengths.get_mut(sequence);
        match (current, i64::try_from(length)) {
            (Some(current), Ok(length)) if length <= *current => *current = length,
            _ => {
                let message = format!(
                    "length: expected no more rows than are in use, got {} for sequence {}",
                    length, sequence
                );
                return Err(Error::new(Status::Value, message));
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        grown: Vec<i64>,
        key: &View<'_>,
        value: &View<'_>,
        options: KvAppendOptions<'_>,
    ) -> Result<()> {
        let stored_key = ViewMut::new(&mut self.key, &self.key_shape)?;
        let stored_value = ViewMut::new(&mut self.value, &self.value_shape)?;
        let lengths = View::new(&grown, &[grown.len()])?;
        let mut kv = KvMut::new(stored_key, stored_value).lengths(lengths);
        kv_append(&mut kv, key, value, options)?;
        self.lengths = grown;
        Ok(())
    }
}

/// Memory for a shape, or the failure to get it.
fn zeros<'a, T: Copy + Default>(shape: impl Iterator<Item = &'a usize>) -> Result<Vec<T>> {
    let count = shape.copied().try_fold(1usize, usize::checked_mul);
    let mut made = Vec::new();
    match count.map(|count| made.try_reserve_exact(count).map(|()| count)) {
        Some(Ok(count)) => {
            made.resize(count, T::default());
            Ok(made)
        }
        _ => Err(Error::new(
            Status::Memory,
            "cache: no memory for its shape".to_owned(),
        )),
    }
}
