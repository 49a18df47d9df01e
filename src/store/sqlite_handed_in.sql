-- The digest of the refresh token that an operator handed in, by which it is known again
-- when it has been renewed since; NULL for grants of before.
ALTER TABLE tokens ADD COLUMN handed_in BLOB CHECK (handed_in IS NULL OR length(handed_in) = 32);
