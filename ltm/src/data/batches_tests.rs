use super::*;
use crate::data::{Bytes, Tokenizer};

const END: u16 = 257;

fn data(tokens: &[u16]) -> Dataset {
    Dataset::from_tokens("memory", tokens.to_vec(), &(Arc::new(Bytes) as Arc<dyn Tokenizer>)).unwrap()
}

/// Inputs, targets and what is known of a sample.
fn sample(source: &dyn Source, index: u64) -> (Vec<i32>, Vec<i32>, SampleInfo) {
    let (mut tokens, mut targets) = (vec![77; source.sequence()], vec![77; source.sequence()]);
    let info = source.fill(index, &mut tokens, &mut targets).unwrap();
    (tokens, targets, info)
}

#[test]
fn windows_score_every_token_once() {
    let source = Windows::new(data(&[1, 2, 3, END, 4, 5, 6]), 3, Tail::Pad).unwrap();
    assert_eq!(source.samples(), Some(3));
    let info = |id, scored, bytes| SampleInfo { id, scored, bytes, nats: None };
    assert_eq!(sample(&source, 0), (vec![256, 1, 2], vec![1, 2, 3], info(0, 3, 3)));
    assert_eq!(sample(&source, 1), (vec![3, 257, 4], vec![257, 4, 5], info(1, 3, 2)));
    assert_eq!(sample(&source, 2), (vec![5, 257, 257], vec![6, -1, -1], info(2, 1, 1)));
    assert_eq!(Windows::new(data(&[1, 2, 3, 4]), 3, Tail::Drop).unwrap().samples(), Some(1));
    assert_eq!(Windows::new(data(&[1, 2, 3]), 3, Tail::Pad).unwrap().samples(), Some(1));
}

#[test]
fn data_shorter_than_a_sequence_is_refused() {
    let error = Windows::new(data(&[1, 2]), 3, Tail::Drop).err().unwrap().to_string();
    assert_eq!(error, "memory: 2 tokens are fewer than one sequence of 3: more text or a shorter sequence is needed");
    assert_eq!(Windows::new(data(&[1, 2]), 3, Tail::Pad).unwrap().samples(), Some(1));
    assert!(Windows::new(data(&[1]), 0, Tail::Pad).is_err());
}

#[test]
fn documents_begin_and_end() {
    // An end token in front, as llm.c has it; an empty document; one that just fits; one without its end.
    let tokens = [END, 1, 2, END, END, 3, 4, 5, END, 6];
    let source = Documents::new(data(&tokens), 4, LongDocuments::Refuse).unwrap();
    assert_eq!(source.samples(), Some(3));
    let info = |id, scored, bytes| SampleInfo { id, scored, bytes, nats: None };
    assert_eq!(sample(&source, 0), (vec![256, 1, 2, 257], vec![1, 2, 257, -1], info(0, 3, 2)));
    assert_eq!(sample(&source, 1), (vec![256, 3, 4, 5], vec![3, 4, 5, 257], info(1, 4, 3)));
    assert_eq!(sample(&source, 2), (vec![256, 257, 257, 257], vec![6, -1, -1, -1], info(2, 1, 1)));
    assert_eq!(
        Documents::new(data(&[END, END]), 4, LongDocuments::Split).err().unwrap().to_string(),
        "memory holds no document"
    );
}

#[test]
fn long_documents_are_refused_or_split() {
    let tokens = [1, END, 2, 3, 4, 5, END];
    let error = Documents::new(data(&tokens), 3, LongDocuments::Refuse).err().unwrap().to_string();
    assert_eq!(
        error,
        "memory, token 2: the document from here on has 5 tokens with its end, a sequence 3: \
         make sequences longer or let long documents be split"
    );
    let source = Documents::new(data(&tokens), 3, LongDocuments::Split).unwrap();
    let both = |i| (sample(&source, i).0, sample(&source, i).1);
    assert_eq!(both(0), (vec![256, 1, 257], vec![1, 257, -1]));
    assert_eq!(both(1), (vec![256, 2, 3], vec![2, 3, 4]));
    assert_eq!(both(2), (vec![4, 5, 257], vec![5, 257, -1]));
    assert_eq!(source.samples(), Some(3));
}

/// Whatever the text and the length, the scored targets are the text, and every input is the target before it.
#[test]
fn targets_are_the_text() {
    for round in 0..200 {
        let dice = Stream::new(5, 0).step(round);
        let tokens: Vec<u16> = (0..1 + dice.below(0, 60) as u32)
            .map(|i| if dice.below(1 + i, 5) == 0 { END } else { 65 + dice.below(100 + i, 26) as u16 })
            .collect();
        let sequence = 1 + dice.below(99, 12);
        let windows: Box<dyn Source> = Box::new(Windows::new(data(&tokens), sequence, Tail::Pad).unwrap());
        let mut sources = vec![(windows, tokens.clone())];
        let mut texts = tokens.clone();
        texts.dedup_by(|a, b| *a == END && *b == END);
        if texts[0] == END {
            texts.remove(0);
        }
        if let Ok(documents) = Documents::new(data(&tokens), sequence, LongDocuments::Split) {
            sources.push((Box::new(documents), texts));
        }
        for (source, expected) in sources {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for index in 0..source.samples().unwrap() {
                let (inputs, targets, info) = sample(&*source, index);
                let n = info.scored as usize;
                assert!(n > 0 && inputs[1..n] == targets[..n - 1] && targets[n..].iter().all(|&id| id == IGNORED));
                let before = found.last().map_or(256, |&id| i32::from(id));
                assert!(inputs[0] == before || (inputs[0] == 256 && before == i32::from(END)));
                found.extend(targets[..n].iter().map(|&id| id as u16));
                bytes += info.bytes;
            }
            assert_eq!(found, expected);
            assert_eq!(bytes, expected.iter().filter(|&&id| id != END).count() as u64);
        }
    }
}

fn hundred() -> Arc<dyn Source> {
    let tokens: Vec<u16> = (0..200).collect();
    Arc::new(Windows::new(data(&tokens), 2, Tail::Drop).unwrap())
}

#[test]
fn each_epoch_is_another_permutation_and_any_place_can_be_resumed_at() {
    let order = |seed| {
        let mut sampler = Sampler::new(hundred(), Order::Shuffled { seed }).unwrap();
        (0..300).map(|place| sampler.sample_at(place).unwrap()).collect::<Vec<_>>()
    };
    let all = order(1);
    for epoch in all.chunks(100) {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..100));
    }
    assert_ne!(all[..100], all[100..200]);
    assert_ne!(all, order(2));
    for place in [0, 99, 100, 257] {
        let mut resumed = Sampler::new(hundred(), Order::Shuffled { seed: 1 }).unwrap();
        assert_eq!(resumed.sample_at(place), Some(all[place as usize]));
    }
}

#[test]
fn the_last_batch_is_filled_up_with_nothing() {
    let tokens = data(&[1, 2, 3, 4, 5]);
    let mut sampler = Sampler::new(Arc::new(Windows::new(tokens, 2, Tail::Pad).unwrap()), Order::Once).unwrap();
    let mut batch = Batch::new(2, 2);
    sampler.fill(0, &mut batch).unwrap();
    assert_eq!((batch.tokens.as_slice(), batch.targets.as_slice()), (&[256, 1, 2, 3][..], &[1, 2, 3, 4][..]));
    assert_eq!((batch.scored(), batch.bytes()), (4, 4));
    sampler.fill(2, &mut batch).unwrap();
    assert_eq!((batch.tokens.as_slice(), batch.targets.as_slice()), (&[4, 257, 0, 0][..], &[5, -1, -1, -1][..]));
    assert_eq!(batch.samples[1], SampleInfo { id: 3, ..SampleInfo::default() });
    assert_eq!((batch.scored(), batch.bytes()), (1, 1));
}

/// A batch is its samples: the same whatever the batch size.
#[test]
fn batches_of_any_size_hold_the_same_samples() {
    let mut sampler = Sampler::new(hundred(), Order::Shuffled { seed: 4 }).unwrap();
    let (mut four, mut three) = (Batch::new(4, 2), Batch::new(3, 2));
    sampler.fill(98, &mut four).unwrap();
    sampler.fill(99, &mut three).unwrap();
    assert_eq!(
        (&four.tokens[2..], &four.targets[2..], &four.samples[1..]),
        (&*three.tokens, &*three.targets, &*three.samples)
    );
}
