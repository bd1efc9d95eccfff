//! Frames, and what a peer may send.

use super::frame::{self, LARGEST_OF_STRANGERS};

#[tokio::test]
async fn a_frame_comes_out_as_it_went_in_whatever_its_size() {
    for size in [0, 1, 16 << 10, (16 << 10) + 1, 1 << 20] {
        let body = vec![7; size];
        let (mut near, mut far) = tokio::io::duplex(4096);
        let sent = body.clone();
        let writer = tokio::spawn(async move { frame::write(&mut near, 2, &sent).await });
        assert_eq!(frame::read(&mut far, frame::LARGEST).await.unwrap(), Some((2, body)));
        writer.await.unwrap().unwrap();
        assert_eq!(frame::read(&mut far, frame::LARGEST).await.unwrap(), None, "a clean end between frames");
    }
}

#[tokio::test]
async fn lengths_that_cannot_be_are_refused_before_memory_is_taken() {
    use tokio::io::AsyncWriteExt;
    let over = u32::try_from(LARGEST_OF_STRANGERS + 1).unwrap();
    for length in [0, over, u32::MAX] {
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&length.to_be_bytes()).await.unwrap();
        let error = frame::read(&mut far, LARGEST_OF_STRANGERS).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{length}");
    }
}

#[tokio::test]
async fn a_frame_that_breaks_off_is_an_error() {
    use tokio::io::AsyncWriteExt;
    for cut in 1..9 {
        let mut whole = Vec::new();
        frame::write(&mut whole, 1, b"abcd").await.unwrap();
        let (mut near, mut far) = tokio::io::duplex(64);
        near.write_all(&whole[..cut]).await.unwrap();
        drop(near);
        assert!(frame::read(&mut far, 64).await.is_err(), "after {cut} bytes");
    }
}
