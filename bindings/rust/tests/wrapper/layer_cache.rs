// SPDX-License-Identifier: BSD-3-Clause
//! Steps of a layer with a cache, a rotation and norms are the whole sequence.

use attention::{
    ForwardOptions, KvMut, MultiheadConfig, QkNorm, Result, RopeOptions, SdpaOptions, View, ViewMut,
};

use crate::numbers;

const ROWS: usize = 5;
const EMBED_DIM: usize = 8;
const ROOM: usize = 6;
const DIM: usize = 4;

fn options<'a>() -> ForwardOptions<'a> {
    ForwardOptions::new()
        .attention(SdpaOptions::new().is_causal(true))
        .rope(RopeOptions::new().base(500.0))
}

fn assert_near(whole: &[f32], found: &[f32]) {
    for (a, b) in whole.iter().zip(found) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn steps_are_the_whole() -> Result<()> {
    let mut layer = MultiheadConfig::new(EMBED_DIM, 2)
        .num_kv_heads(1)
        .head_dim(DIM)
        .qk_norm(QkNorm::Head)
        .qk_norm_epsilon(1e-6)
        .qk_norm_weight_offset(1.0)
        .build()?;
    layer.init_parameters(3)?;
    let config = layer.config()?;
    assert_eq!(config.qk_norm, Some(QkNorm::Head));
    assert_eq!(config.qk_norm_weight_offset, 1.0);

    let input = numbers(ROWS * EMBED_DIM);
    let (mut whole, mut output) = (vec![0.0; input.len()], vec![0.0; input.len()]);
    let all = View::new(&input, &[ROWS, EMBED_DIM])?;
    let mut to = ViewMut::new(&mut whole, &[ROWS, EMBED_DIM])?;
    layer.forward(&all, &all, &all, &mut to, options())?;

    let (mut keys, mut values) = (vec![0f32; ROOM * DIM], vec![0f32; ROOM * DIM]);
    let shape = [1, ROOM, DIM];
    let mut first = 0;
    for count in [3, 1, 1] {
        let end = first + count;
        let lengths = [end as i64];
        let range = first * EMBED_DIM..end * EMBED_DIM;
        let part = View::new(&input[range.clone()], &[count, EMBED_DIM])?;
        let mut to = ViewMut::new(&mut output[range], &[count, EMBED_DIM])?;
        let cache = KvMut::new(
            ViewMut::new(&mut keys, &shape)?,
            ViewMut::new(&mut values, &shape)?,
        )
        .lengths(View::new(&lengths, &[])?);
        layer.forward(&part, &part, &part, &mut to, options().cache(cache))?;
        first = end;
    }
    assert_near(&whole, &output);

    let mut again = vec![0.0; EMBED_DIM];
    let last = View::new(&input[(ROWS - 1) * EMBED_DIM..], &[1, EMBED_DIM])?;
    let mut to = ViewMut::new(&mut again, &[1, EMBED_DIM])?;
    let lengths = [ROWS as i64];
    let cache = KvMut::new(
        ViewMut::new(&mut keys, &shape)?,
        ViewMut::new(&mut values, &shape)?,
    )
    .lengths(View::new(&lengths, &[])?);
    layer.forward_cached(&last, &mut to, options().cache(cache))?;
    assert_near(&whole[(ROWS - 1) * EMBED_DIM..], &again);
    Ok(())
}
