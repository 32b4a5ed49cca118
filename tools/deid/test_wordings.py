"""The wordings of the test of de-identification: 48 documents that share nothing with what a tagger is trained on.

A slot is `[[TYPE form]]`; slot_values.py draws its text. Slots with the same `=key` are about the same person. Written
before any training note. Whatever is not in a slot is not an identifier: diseases, tests and drugs that are named after
people, words such as May and Rose, scores and doses.
"""

from __future__ import annotations

WORDINGS: tuple[str, ...] = (
    "DISCHARGE LETTER\n\nDear Dr [[NAME last]],\n\nThank you for asking us to see [[NAME full=p]], born [[DATE "
    "slash]], of [[LOCATION street]], [[LOCATION city]] [[LOCATION zip]]. [[NAME last=p]] came in on [[DATE "
    "long]] with crushing chest pain and left on [[DATE dayfirst]]. Troponin rose to 3.4. Aspirin 75 mg was "
    "started. May need a stent later.\n\nYours sincerely,\n[[NAME initials]]\nConsultant, [[HOSPITAL name]]\n"
    "Tel [[PHONE dotted]]",
    "ED TRIAGE 02:14\npt [[NAME lower]] brought by wife [[NAME lowerfirst]] c/o sob x3d. hx copd, chf. mrn "
    "[[ID number]]. last seen here [[DATE short]]. sats 88 on ra. gave duoneb x2. will page dr [[NAME "
    "lowerlast]] at [[PHONE ext]]",
    "OPERATIVE REPORT\nPatient: [[NAME comma=p]]\nRecord no.: [[ID dashed]]\nSurgeon: [[NAME title]]\nFirst "
    "assistant: [[NAME full]]\nDate of operation: [[DATE iso]]\nProcedure: laparoscopic cholecystectomy with a "
    "Hasson port. A Foley catheter was placed. Calot's triangle was dissected. Blood loss 40 ml. [[NAME "
    "last=p]] went to recovery in good order.",
    "Phone call taken by the front desk: a Mrs. [[NAME last]] rang from [[PHONE plain]] about her son [[NAME "
    "first=s]] ([[AGE old]] is his great-grandfather, who lives with them). [[NAME first=s]]'s rash is back. "
    "She can be written to at [[EMAIL any]]. Told her to use the cream twice a day.",
    "HOME VISIT\n\nVisited at [[LOCATION street]], flat 4. Door opened by the neighbour, [[NAME full]]. [[NAME "
    "first=p]] was in bed. Wound on the left heel 2 by 3 cm, clean. The district nurse [[NAME first]] dresses "
    "it on Mondays. Long walk tests are not possible. Next visit [[DATE weekday]].",
    "PATHOLOGY\nSpecimen [[ID accession]] received [[DATE slash]] from [[HOSPITAL short]].\nSubmitted by: "
    "[[NAME comma]]\nGross: a skin ellipse, 12 x 5 mm. Micro: nodular basal cell carcinoma, Clark level II, "
    "Breslow not applicable.\nSigned electronically by [[NAME title]] on [[DATE stamp]].",
    "Transfer summary: [[NAME full=p]] ([[ID number]]) was moved from [[HOSPITAL name]] to [[HOSPITAL name]] "
    "on [[DATE long]] because the family lives in [[LOCATION city]]. The receiving team under [[NAME title]] "
    "was briefed by [[NAME full]]. Contact for the family: [[NAME full]] (daughter), [[PHONE paren]].",
    "Group therapy, session 7. Present: [[NAME first]], [[NAME first]], [[NAME first]] and the therapist "
    "[[NAME full]]. [[NAME first]] did not come; she wrote to [[EMAIL any]] that her bus from [[LOCATION "
    "city]] was late. Theme: grief. Hope and faith were talked about. Nobody was at risk.",
    "Genetics clinic\nProband: [[NAME hyphen=p]], DOB [[DATE iso]]. Mother: [[NAME full]], née [[NAME last]]. "
    "Maternal grandfather [[NAME full]] had Huntington disease and died at [[AGE old]]. Sample [[ID "
    "accession]] was sent to [[HOSPITAL short]] on [[DATE monthyear]]. Turner syndrome was excluded.",
    "PHYSIOTHERAPY\nReferral from GP ([[NAME initials]]). Right shoulder, Neer test positive, Hawkins "
    "negative. Goals: reach the top shelf by June. Patient, [[NAME first]], works as a baker in [[LOCATION "
    "city]]. Exercises mailed to [[EMAIL any]] on [[DATE dotted]].",
    "RADIOLOGY REPORT\nExam: CT head without contrast. Acc: [[ID accession]]\nName: [[NAME upper]]\nReferrer: "
    "[[NAME title]]\nCompared with: [[DATE slash]]\nNo bleed. Mild volume loss. Findings were phoned to [[NAME "
    "full]] at [[PHONE dotted]] at 16:05.\nReported by [[NAME initials]]",
    "Social work note: the flat at [[LOCATION street]] has no heating. The landlord, Mr [[NAME last]], was "
    "called on [[PHONE plain]]. [[NAME full=p]]'s sister [[NAME first]] in [[LOCATION city]] will take him in "
    "for the winter. Benefit number [[ID dashed]]. The case worker is [[NAME full]], see [[URL any]].",
    "Nutrition: seen with interpreter [[NAME full]]. Weight 61.2 kg, BMI 21. Rose hip tea and long beans are "
    "fine. [[NAME first]] likes rice. Diet plan handed out and mailed to [[EMAIL any]]; review in 6 weeks, on "
    "[[DATE weekday]] at [[HOSPITAL name]].",
    "Midwife's notes. [[NAME full=p]], G2P1, 39+4. Partner: [[NAME full]]. Waters broke on [[DATE daymonth]] "
    "at 03:20 in the car on the way from [[LOCATION city]]. Apgar 9, 10, 10. Baby named [[NAME first]]. [[NAME "
    "last=p]] and the baby went home on [[DATE daymonth]]. Band no. [[ID number]].",
    "Dental\n[[NAME comma=p]] | chart [[ID number]] | last visit [[DATE short]]\nTooth 36 crown, lot A4. "
    "Miller forceps. Insurance [[ID dashed]] runs out [[DATE monthyear]]. Hygienist [[NAME first]]. Recall by "
    "text to [[PHONE plain]].",
    "Psychiatry intake. 'My name is [[NAME full=p]] and I am the king of [[LOCATION city]],' he says. Brought "
    "by officers [[NAME last]] and [[NAME last]], badge [[ID number]]. Mother [[NAME full]] confirms by phone "
    "([[PHONE paren]]) that [[NAME first=p]] stopped his lithium in May. Section signed by [[NAME title]] on "
    "[[DATE slash]].",
    "Lab, addendum\nThe potassium of [[DATE stamp]] for MRN [[ID split]] was hemolyzed. Repeat drawn by [[NAME "
    "first]] and called to [[NAME full]], RN, on ward 6.",
    "Oncology board of [[DATE dayfirst]]: case 3, Ms [[NAME last=p]] from [[LOCATION city]], invasive ductal "
    "carcinoma, Nottingham grade 2, Paget disease of the nipple excluded. Present: [[NAME title]], [[NAME "
    "title]], [[NAME title]]. Plan: letrozole. [[NAME initials]] will tell the patient.",
    "Death note. I was called at 05:10 to see [[NAME full=p]], aged [[AGE old]]. No breath sounds, pupils "
    "fixed. Time of death 05:22, [[DATE long]]. The son, [[NAME full]], was told at [[PHONE intl]]. The "
    "coroner in [[LOCATION city]] was informed by [[NAME initials]].",
    "Vaccination record\nName ...... [[NAME comma]]\nBorn ...... [[DATE dotted]]\nCard ...... [[ID dashed]]\n"
    "Dose 1 .... [[DATE dotted]], left arm, lot FX22\nDose 2 .... [[DATE dotted]], right arm\nSite ...... "
    "[[HOSPITAL name]], [[LOCATION city]]\nGiven by .. [[NAME first]]",
    "Email from patient, pasted: Hi doctor, it is [[NAME first=p]] again from [[LOCATION city]]. My new number "
    "is [[PHONE dotted]] and my mail is [[EMAIL any]]. The photos are at [[URL any]]. The long cough is gone "
    "since [[DATE weekday]]. Greetings, [[NAME full=p]]",
    "ICU DAY 4\nBed 11, [[NAME upper=p]]\nIntubated since [[DATE daymonth]]. Swan-Ganz in. Glasgow 7. "
    "Noradrenaline 0.2. Family talk with [[NAME full]] and [[NAME first]] held by [[NAME title]]. They came "
    "from [[LOCATION city]] by train. Bleep [[PHONE ext]] for any change.",
    "School nurse: [[NAME full=p]], year 5, hit his head on the bench during gym on [[DATE weekday]]. Teacher "
    "[[NAME last]] saw it. Father called, [[PHONE plain]], will fetch him at noon. No vomiting. Seen later at "
    "[[HOSPITAL short]], slip [[ID accession]].",
    "Allergy clinic. [[NAME first=p]] ([[NAME comma=q]] in the old file) reacted to amoxicillin in [[DATE "
    "monthyear]]. Prick tests: grass 5 mm, rose 0, mite 3 mm. Written plan given to her husband [[NAME "
    "first]]. Copy to [[NAME initials]], [[LOCATION street]], [[LOCATION city]].",
    "Dictated but not read\n\nre: [[NAME full=p]]\nfile [[ID number]]\n\nthis pleasant lady of [[AGE old]] was "
    "seen with [[NAME lowerfirst]], her carer. parkinson disease, stage hoehn and yahr 3. madopar 125 three "
    "times a day. she would like to see mr [[NAME lowerlast]] again in [[DATE monthyear]].",
    "Ambulance sheet no. [[ID accession]]\nPicked up: [[LOCATION street]], [[LOCATION city]]\nTime: [[DATE "
    "stamp]]\nPatient says his name is [[NAME first]]; the card in his pocket says [[NAME comma]].\nGCS 14. "
    "Handed over to [[NAME full]] at [[HOSPITAL name]].",
    "Sleep study ordered by [[NAME title]] for [[NAME full=p]]. Epworth 14, Mallampati 3. Study on [[DATE "
    "iso]] at [[HOSPITAL short]]. Mask fitted by [[NAME first]]. Data are under [[URL any]], login [[EMAIL "
    "any]]. AHI 31. [[NAME last=p]] wants a nasal mask.",
    "COMPLAINT, for the file: Mr. [[NAME full=p]] says that nurse [[NAME first]] was rude to his wife, [[NAME "
    "full]], on [[DATE dayfirst]]. He wants an answer by post to [[LOCATION street]], [[LOCATION zip]] "
    "[[LOCATION city]], or by phone, [[PHONE intl]]. Ref. [[ID dashed]].",
    "Travel clinic: flying to [[LOCATION city]] on [[DATE daymonth]], back [[DATE daymonth]]. Yellow fever "
    "done [[DATE slash]] by [[NAME initials]]. Passport [[ID accession]]. Companion: [[NAME hyphen]]. Malarone "
    "from two days before. Japanese encephalitis not needed.",
    "Speech therapy\n[[NAME first=p]] says single words after the stroke: 'water', 'home', '[[NAME first]]'. "
    "Boston naming 11 of 60. Wernicke type. His wife [[NAME first]] practises with him. Sessions with [[NAME "
    "full]] on Tuesdays, [[HOSPITAL name]].",
    "Consult: thank you, [[NAME initials]]. I saw [[NAME full=p]] on [[DATE long]]. Crohn disease since the "
    "age of 19, Montreal A2L3B1. Lives in [[LOCATION city]] with [[NAME full]]. Infliximab next on [[DATE "
    "iso]]. If fever, call [[PHONE paren]]. -- [[NAME full]], MD",
    "Blood bank: unit [[ID accession]] for [[NAME upper=p]], hospital no. [[ID number]], crossmatched [[DATE "
    "stamp]] by [[NAME first]]. Anti-Kell positive, Duffy negative. Ward clerk [[NAME last]] informed on "
    "[[PHONE ext]].",
    "Rehab weekly report. [[NAME first=p]], [[NAME first]] and [[NAME first]] cooked together. [[NAME "
    "first=p]] walked 200 m with a Zimmer frame. Berg 41. Family meeting with [[NAME full]] (nephew) set for "
    "[[DATE weekday]]. Discharge to [[LOCATION city]] planned for [[DATE daymonth]].",
    "Eye clinic\nOD 6/9, OS 6/12, IOP 21/24 by Goldmann. Snellen chart at 6 m. Rose bengal negative. [[NAME "
    "full=p]] drives a lorry between [[LOCATION city]] and [[LOCATION city]]. Licence [[ID dashed]]. To see "
    "[[NAME title]] on [[DATE dotted]].",
    "Pharmacy query, [[DATE stamp]]: script for [[NAME comma=p]] signed '[[NAME initials]]' asks for "
    "methotrexate daily. Called [[PHONE dotted]]; spoke to [[NAME full]]. It should be weekly. Corrected. "
    "Patient's son [[NAME first]] will pick it up.",
    "Child protection, strictly private. Twins [[NAME first=a]] and [[NAME first=b]], placed with [[NAME "
    "full]] in [[LOCATION city]] since [[DATE monthyear]]. [[NAME first=a]] sleeps well; [[NAME first=b]] asks "
    "for 'mama [[NAME first]]'. Judge [[NAME last]], file [[ID dashed]]. Contact [[EMAIL any]].",
    "Research consent\nI, [[NAME full=p]], born [[DATE slash]] in [[LOCATION city]], agree to take part in the "
    "study. Subject code [[ID accession]]. Explained by [[NAME title]] on [[DATE iso]]. Questions: [[PHONE "
    "intl]] or [[EMAIL any]] or [[URL any]].\nSigned: [[NAME initials]]",
    "GERIATRICS: this [[AGE old]] year old retired teacher from [[LOCATION city]] was found on the floor by "
    "her neighbour [[NAME full]]. MMSE 22. Barthel 55. Long QT on the trace. Her niece, [[NAME hyphen]], has "
    "power of attorney ([[PHONE plain]]). Seen by [[NAME initials]] on [[DATE dayfirst]].",
    "handover night to day: bed 1 [[NAME lowerlast]] stable. bed 2 [[NAME lowerlast]] spiked 38.9, cultures "
    "sent. bed 3 new, [[NAME lower]], from [[HOSPITAL short]], needs [[NAME lowerlast]] to sign. bed 4 empty. "
    "bleep [[PHONE ext]].",
    "Orthopaedics\nMr [[NAME full=p]] fell off his roof in [[LOCATION city]] on [[DATE daymonth]]. Colles "
    "fracture left, Gustilo 0. Kirschner wires by [[NAME title]]. Plaster check at [[HOSPITAL name]] on [[DATE "
    "slash]]. Work note for [[NAME first=p]]'s boss, Ms [[NAME last]], faxed to [[PHONE paren]].",
    "Hospice diary. [[NAME first=p]] talked of [[LOCATION city]], where she was born on [[DATE long]], and of "
    "her sister [[NAME first]]. Morphine 5 mg at 14:00. At dusk [[NAME first]] and [[NAME first]] sang. "
    "Chaplain [[NAME last]] stayed. She may not live to see June.",
    "Cardiology device check: pacemaker serial [[ID accession]], implanted [[DATE monthyear]] by [[NAME "
    "initials]] at [[HOSPITAL short]]. Battery 6 years. [[NAME full=p]] felt dizzy on [[DATE weekday]]. Mode "
    "DDD. Remote data: [[URL any]]. Technician [[NAME first]], [[PHONE ext]].",
    "Referral by fax\nTo: [[NAME title]], [[HOSPITAL name]]\nFrom: [[NAME initials]], [[LOCATION street]]\nRe: "
    "[[NAME comma]], [[DATE dotted]], no [[ID split]]\nPlease see for Dupuytren contracture, both hands. "
    "Warfarin for AF. Interpreter for Tamil needed.",
    "Endocrine: Graves disease, TRAb 11. [[NAME full=p]] and her twin [[NAME first]] both have it. Hashimoto "
    "in the aunt, [[NAME full]]. Carbimazole 20 mg. Bloods at the practice of [[NAME last]] in [[LOCATION "
    "city]] on [[DATE dayfirst]]. She will write to [[EMAIL any]] if her throat is sore.",
    "Prison health: [[NAME comma=p]], number [[ID number]], moved from [[LOCATION city]] on [[DATE stamp]]. "
    "Cell mate [[NAME first]] says [[NAME first=p]] did not eat. Officer [[NAME last]] present. Hunger strike "
    "protocol; weight 58 kg. Governor told by [[NAME full]].",
    "Nephrology: Mrs. [[NAME hyphen=p]], dialysis Mon Wed Fri at [[HOSPITAL name]]. Fistula by [[NAME title]]. "
    "Kt/V 1.4. Alport excluded. Transport from [[LOCATION street]] by [[NAME first]]'s taxi, [[PHONE plain]]. "
    "Hepatitis B shot on [[DATE short]]. Card [[ID dashed]].",
    "Urgent: lab [[ID accession]], sodium 118, patient [[NAME initials=p]] (full name on the form: [[NAME "
    "full]]). Form gives [[LOCATION city]] and a phone, [[PHONE dotted]], that nobody answers. Police asked at "
    "[[DATE stamp]] by [[NAME full]].",
    "Diary of a study nurse, site [[HOSPITAL short]]: screened [[NAME initials]] and [[NAME initials]] on "
    "[[DATE iso]]. [[NAME first]] in [[LOCATION city]] sends the drug. Monitor [[NAME full]] comes on [[DATE "
    "weekday]]; her mail: [[EMAIL any]]. Portal [[URL any]]. Arm B, dose 2 mg.",
)
