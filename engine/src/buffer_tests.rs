use super::*;

#[test]
fn memory_is_aligned_zeroed_and_reusable() {
    let mut b = Buffer::new(Spec::new(DType::F64, &[3, 5]));
    assert!(b.as_slice::<f64>().iter().all(|&x| x == 0.0));
    assert_eq!(b.as_bytes().as_ptr() as usize % ALIGN, 0);
    b.respec(Spec::new(DType::F32, &[7]));
    b.set_f64(&[1.5; 7]);
    assert_eq!(b.to_f64(), [1.5; 7]);
    let moved = b;
    assert_eq!(moved.as_bytes().as_ptr() as usize % ALIGN, 0);
    assert_eq!(moved.clone().as_slice::<f32>(), &[1.5f32; 7]);
}

#[test]
fn nothing_fits_into_no_memory() {
    let mut b = Buffer::empty();
    b.respec(Spec::new(DType::F64, &[0]));
    assert!(b.as_slice::<f64>().is_empty() && b.as_mut_slice::<f64>().is_empty());
}

#[test]
#[should_panic(expected = "does not fit")]
fn a_value_that_does_not_fit_is_a_bug() {
    Buffer::with_capacity(8).respec(Spec::new(DType::F64, &[3]));
}

#[test]
#[should_panic(expected = "element type")]
fn the_wrong_type_is_a_bug() {
    let _ = Buffer::new(Spec::new(DType::F64, &[2])).as_slice::<f32>();
}
