"""The engine of transcripts."""
