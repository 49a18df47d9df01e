-- Begins the history of changes, if there is none.
-- KEYS: revision

begin(KEYS[1])
return 1
