"""The kind of transcripts."""
