"""Speed, consistency and control of world models under one protocol."""
