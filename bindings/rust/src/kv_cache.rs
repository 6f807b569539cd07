// SPDX-License-Identifier: BSD-3-Clause
//! A cache that has its own memory.

use crate::error::{Error, Result, Status};
use crate::kv::{kv_append, Kv, KvAppendOptions, KvMut};
use crate::sdpa::{sdpa_kv, SdpaOptions};
use crate::view::{Dtype, Element, View, ViewMut};

/// Keys and values of B sequences, stored as `T`, with room for C rows of each: one of the floats,
/// `i8`, `u8`, [`Int4x2`](crate::Int4x2), [`Uint4x2`](crate::Uint4x2) or [`Q8_0`](crate::Q8_0). Rows
/// of `i8` and `Int4x2` have a scale each, of `u8` and `Uint4x2` a scale and a zero: what is
/// attended to is off by half a scale at most.
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
    key: Rows<T>,
    value: Rows<T>,
    lengths: Vec<i64>,
}

/// The memory of keys, or of values; scales and zeros are empty where `T` has none.
#[derive(Debug, Clone)]
struct Rows<T> {
    elements: Vec<T>,
    shape: [usize; 4],
    scales: Vec<f32>,
    zeros: Vec<f32>,
    scale_shape: [usize; 4],
}

impl<T: Element + Default> Rows<T> {
    const HAVE_ZEROS: bool = matches!(T::DTYPE, Dtype::Uint8 | Dtype::Uint4x2);
    const HAVE_SCALES: bool = Self::HAVE_ZEROS || matches!(T::DTYPE, Dtype::Int8 | Dtype::Int4x2);

    fn new(shape: [usize; 4]) -> Result<Self> {
        let scale_shape = [shape[0], shape[1], shape[2], 1];
        let numbers_if = |present: bool| match present {
            true => zeros(scale_shape.iter()),
            false => Ok(Vec::new()),
        };
        Ok(Rows {
            elements: zeros(shape.iter())?,
            shape,
            scales: numbers_if(Self::HAVE_SCALES)?,
            zeros: numbers_if(Self::HAVE_ZEROS)?,
            scale_shape,
        })
    }
}

impl<T: Element + Default> KvCache<T> {
    /// (B, Hk, C, E) and (B, Hv, C, Ev), E and Ev in elements; all of it is allocated now.
    pub fn new(key_shape: [usize; 4], value_shape: [usize; 4]) -> Result<Self> {
        Ok(KvCache {
            key: Rows::new(key_shape)?,
            value: Rows::new(value_shape)?,
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
        let (key, value) = (&self.key, &self.value);
        let mut kv = Kv::new(
            View::new(&key.elements, &key.shape)?,
            View::new(&value.elements, &value.shape)?,
        )
        .lengths(View::new(&self.lengths, &[self.lengths.len()])?);
        if Rows::<T>::HAVE_SCALES {
            kv = kv
                .key_scale(View::new(&key.scales, &key.scale_shape)?)
                .value_scale(View::new(&value.scales, &value.scale_shape)?);
        }
        if Rows::<T>::HAVE_ZEROS {
            kv = kv
                .key_zero(View::new(&key.zeros, &key.scale_shape)?)
                .value_zero(View::new(&value.zeros, &value.scale_shape)?);
        }
        Ok(kv)
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
        let (stored_key, stored_value) = (&mut self.key, &mut self.value);
        let mut kv = KvMut::new(
            ViewMut::new(&mut stored_key.elements, &stored_key.shape)?,
            ViewMut::new(&mut stored_value.elements, &stored_value.shape)?,
        )
        .lengths(View::new(&grown, &[grown.len()])?);
        if Rows::<T>::HAVE_SCALES {
            let (of_key, of_value) = (&mut stored_key.scales, &mut stored_value.scales);
            kv = kv
                .key_scale(ViewMut::new(of_key, &stored_key.scale_shape)?)
                .value_scale(ViewMut::new(of_value, &stored_value.scale_shape)?);
        }
        if Rows::<T>::HAVE_ZEROS {
            let (of_key, of_value) = (&mut stored_key.zeros, &mut stored_value.zeros);
            kv = kv
                .key_zero(ViewMut::new(of_key, &stored_key.scale_shape)?)
                .value_zero(ViewMut::new(of_value, &stored_value.scale_shape)?);
        }
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
