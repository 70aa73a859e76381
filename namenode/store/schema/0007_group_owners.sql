-- Whose consumer group it is: who committed first. Only he and superusers move or delete it. '' is nobody's: a group from before there
-- were owners, which belongs to who commits next, or one of a webhook or sink.
ALTER TABLE event_groups ADD COLUMN owner $text NOT NULL DEFAULT '';
