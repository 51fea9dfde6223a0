-- Orders, what they earned, and the rule they earn by.
select 1;
