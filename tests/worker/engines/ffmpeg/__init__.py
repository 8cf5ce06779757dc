"""The engine of films, with the real ffmpeg."""
